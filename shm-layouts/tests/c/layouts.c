/* Includes the header, whose assertions the compiler checks, and prints what the Rust side compares with its own view. */
#include "shmkit_layouts.h"

#include <inttypes.h>
#include <stdio.h>

#define OFFSET(type, field) printf("offset " #type "." #field " %zu\n", offsetof(shmkit_##type, field))
#define SIZE(type) printf("size " #type " %zu\n", sizeof(shmkit_##type))
#define VALUE(name) printf("value " #name " %" PRIu64 "\n", (uint64_t)SHMKIT_##name)
#define PUT(word, field, value) (((uint64_t)(value) & SHMKIT_##word##_##field##_MASK) << SHMKIT_##word##_##field##_SHIFT)

static const unsigned char magic[8] = SHMKIT_MAGIC;

int main(void) {
    SIZE(segment_header);
    OFFSET(segment_header, max_size);
    OFFSET(segment_header, label);
    OFFSET(segment_header, committed);
    OFFSET(segment_header, reserved);
    OFFSET(participant_slot, generation);
    OFFSET(object_entry, cells);
    OFFSET(object_entry, name);
    OFFSET(object_header, element_hash);
    SIZE(rlock_body);
    SIZE(queue_body);
    OFFSET(queue_body, tail);
    OFFSET(queue_body, head);
    OFFSET(queue_body, not_empty);
    OFFSET(queue_body, not_full);
    OFFSET(block_meta, flags);
    OFFSET(pipe_body, receiver);
    OFFSET(value_body, word);
    OFFSET(array_body, len);
    VALUE(LAYOUT_MAJOR);
    VALUE(UNIT_SIZE);
    VALUE(LOCK_GROWTH);
    VALUE(MUTEX_CONTENDED);
    VALUE(CELL_NAME);
    printf("slot %" PRIu64 "\n",
           PUT(SLOT, LAP, 7) | PUT(SLOT, STATE, SHMKIT_SLOT_TAKEN) | PUT(SLOT, OWNER, 4093) | PUT(SLOT, INDEX, 100));
    printf("block %" PRIu64 "\n", PUT(BLOCK, GENERATION, 9) | PUT(BLOCK, OWNER, 5) | PUT(BLOCK, STATE, SHMKIT_BLOCK_READ) |
                                      PUT(BLOCK, DELIVERIES, 2));
    printf("cell %" PRIu64 "\n", PUT(CELL, KIND, SHMKIT_CELL_BLOCK) | PUT(CELL, ROLE, SHMKIT_ROLE_SECOND) |
                                     PUT(CELL, OBJECT, 3) | PUT(CELL, ID, 77) | PUT(CELL, GENERATION, 11));
    printf("magic %.6s %d %d\n", (const char *)magic, magic[6], magic[7]);
    return 0;
}
