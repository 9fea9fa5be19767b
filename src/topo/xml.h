/* xml.h - machines in NCCL's XML: what NCCL_TOPO_FILE gives and NCCL_TOPO_DUMP_FILE asks for.
 *
 *   <system version="1">
 *     <cpu numaid="0" host_hash= affinity= arch= vendor= familyid= modelid=>
 *       <pci busid="0000:17:00.0" class="0x060400" link_speed="16.0 GT/s PCIe" link_width="16">   a switch; may nest
 *         <pci busid= ...> <gpu dev= sm= rank= gdr=> <nvlink target= count= tclass=/> <c2c bw= count=/> </gpu> </pci>
 *         <pci busid= ...> <nic> <net name= dev= speed= port= guid= latency= maxconn= gdr= keep=/> </nic> </pci>
 *         <pcilink target=/>                              a way from this switch to another one
 *       </pci>
 *     </cpu>
 *   </system>
 *
 * Units: net speed 10^6 bit/s; latency microseconds; c2c bw 10^6 byte/s per link. Reading takes what clouds and vendors
 * ship: unknown attributes and elements are skipped with a remark, missing speeds and widths are assumed with a remark,
 * numbers may be decimal or 0x. It refuses, with file, line and remedy, what is damaged, contradicts itself or is absurd. */
#ifndef RAIL_TOPO_XML_H
#define RAIL_TOPO_XML_H

#include <stdio.h>

#include "topo/graph.h"

/* A finished graph, for the caller to destroy. */
enum rail_result topo_xml_read_file(const char *path, struct topo_graph **out);
/* `name` stands for the file in messages. */
enum rail_result topo_xml_read_text(const char *text, size_t bytes, const char *name, struct topo_graph **out);
/* The same machine; reading it again gives the same graph but for where facts came from, ports that are down, and virtual
 * functions, which NCCL does not list. Devices without a driver's number get their place as one. */
enum rail_result topo_xml_write(const struct topo_graph *graph, FILE *out);

#endif
