/* A connection to PostgreSQL and the one transaction of a batch. */
#ifndef STORE_H
#define STORE_H

#include <amqp.h>

#include "buffer.h"

struct confirmation {
    const char *family;
    struct buffer body;
    struct confirmation *next;
};

struct store;

struct store *open_store(const char *name, int most_messages);
/* Commit these bodies; the confirmations that they ask for: one a family, or one a message. */
struct confirmation *store_batch(struct store *store, const amqp_bytes_t *bodies, int count, int one_a_message);

#endif
