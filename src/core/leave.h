/* leave.h - a program that ends by exit() or by returning from main, with communicators that it never destroyed. */
#ifndef RAIL_CORE_LEAVE_H
#define RAIL_CORE_LEAVE_H

/* Registers the exit handler, once. */
void leave_at_exit(void);

#endif
