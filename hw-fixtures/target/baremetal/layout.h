/* Where things are, for the assembler, the compiler and the linker.
 * SPDX-License-Identifier: MIT */
#ifndef HW_FIXTURES_TARGET_BAREMETAL_LAYOUT_H
#define HW_FIXTURES_TARGET_BAREMETAL_LAYOUT_H

/* Physical memory from 0 shows here, and at 0 itself. */
#define OFFSET  0xFFFFF80000000000
#define LOW_MIB 64
/* Memory for bulk reads, its own piece of physical memory. */
#define REGION          0xFFFFFA8000000000
#define REGION_PHYSICAL 0x1000000
#define REGION_MIB      16

/* The modules, behind the kernel. */
#define MODULES_PHYSICAL    0x400000
#define MODULE_LEN          0x10000

#define MULTIBOOT_AT        0xC00 /* in the header page */

#define PML4_INDEX(address) (((address) >> 39) & 511)

#define SELECTOR_CODE       0x10
#define SELECTOR_DATA       0x18
#define SELECTOR_DATA_USER  0x2B

#define VECTORS             48
#define VECTOR_TIMER        32 /* IRQ 0 */

#endif
