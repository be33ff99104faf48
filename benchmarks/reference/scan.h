/* JSON as far as the columns need it: where values begin and end. Nothing is validated. */
#ifndef SCAN_H
#define SCAN_H

#include "buffer.h"
#include "plan.h"

enum value_type { V_ABSENT, V_NULL, V_STRING, V_ESCAPED, V_NUMBER, V_TRUE, V_FALSE, V_NESTED, V_TIME };

struct value {
    enum value_type type;
    const char *at; /* of a string: behind its quote */
    size_t size;
    int64_t time; /* V_TIME: microseconds since 2000, as PostgreSQL counts */
};

struct member {
    const char *name;
    size_t size;
    struct value value;
};

#define MAX_MEMBERS 64

struct message {
    const struct event *event;
    struct value id, source, type, tenant, data;
    int64_t time;
    uint8_t uuid[16], digest[16];
    int members;
    struct member member[MAX_MEMBERS];
    struct buffer extensions;
};

/* Read one event; stops the program where it is none. */
void scan(struct message *message, const char *body, size_t size);
struct value find(const struct message *message, const char *name);
void parse_uuid(const struct value *value, uint8_t uuid[16]);
int64_t parse_time(const char *text, size_t size);
/* The text of a time as clocks have it: 26 characters, UTC. */
void time_text(int64_t time, char text[26]);
/* Send one value as a field of COPY's binary format. */
void put_value(struct buffer *buffer, enum kind kind, const struct value *value);

#endif
