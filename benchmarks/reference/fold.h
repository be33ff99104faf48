/* Folding a batch per entity in memory, as worker/store/merge.py does. */
#ifndef FOLD_H
#define FOLD_H

#include "scan.h"

struct folding;

struct folding *new_folding(void);
void fold_begin(struct folding *folding);
/* Take what one message says about its entity, and the parents that it names. */
void fold_message(struct folding *folding, const struct message *message);
void name_parent(struct folding *folding, int entity, const struct value *key, const struct message *message);
/* The rows of one entity table for COPY, in key order; says how many, and whether any is more than a name. */
int fold_rows(struct folding *folding, int entity, struct buffer *rows, bool *changes);

#endif
