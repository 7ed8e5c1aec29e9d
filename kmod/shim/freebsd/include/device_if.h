/*
 * Empty on purpose.  A kernel build generates device_if.h from kern/device_if.m, and
 * <sys/bus.h> includes it; installed headers have no generated file.  The shim
 * uses none of its methods, only headers that pull <sys/bus.h> in.
 */
