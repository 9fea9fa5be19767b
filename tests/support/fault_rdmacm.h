/* fault_rdmacm.h - a connection manager in memory for the devices of fault_verbs.h, which does what a test says: a table for
 * foreign/rdmacm.h.
 *
 * Device i has the address 127.0.(i+1).1. An end that connects to a port where another listens is told to it, and so on as the
 * kernel does it for queue pairs that are the caller's; those of iWARP devices are joined here. What librdmacm would not
 * forgive (a call in the wrong state, an event acknowledged twice, a channel destroyed in use) ends the program.
 *
 * Faults: any call can fail or hang; events can be lost, or others come instead; what an end shows can be forged. Any thread. */
#ifndef TEST_FAULT_RDMACM_H
#define TEST_FAULT_RDMACM_H

#include "foreign/rdmacm.h"

#ifdef RAIL_HAVE_RDMACM

/* From here on rdmacm_functions() gives this table, without faults. Nothing of it may be in use. */
void fault_rdmacm_install(void);

/* As fault_verbs_fail(), _calls() and _hang(). */
void fault_rdmacm_fail(const char *name, int after, int times, int error);
int fault_rdmacm_calls(const char *name);
void fault_rdmacm_hang(const char *name);

/* The next `times` events of this type are not told. */
void fault_rdmacm_lose(enum rdma_cm_event_type type, int times);
/* The next `times` come as another one, with that status. */
void fault_rdmacm_instead(enum rdma_cm_event_type type, enum rdma_cm_event_type other, int status, int times);
/* Events of this type show other private data than was given, `times` times. */
void fault_rdmacm_forge(enum rdma_cm_event_type type, int times);
/* To every end that is bound to the device. */
void fault_rdmacm_event(int device, enum rdma_cm_event_type type);
/* Somebody connects wherever device i listens, and shows these bytes. How many listeners there were. */
int fault_rdmacm_stranger(int device, const void *shown, uint8_t bytes);

/* Channels and ends that are open. */
int fault_rdmacm_objects(void);

#endif
#endif
