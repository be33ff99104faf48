/* What the program knows of the tables: structures that generate.py fills from the worker's own declarations. */
#ifndef PLAN_H
#define PLAN_H

#include <stdbool.h>

/* How a value is sent in COPY's binary format. */
enum kind { K_UUID, K_TEXT, K_INT4, K_INT8, K_FLOAT8, K_BOOL, K_TIME, K_JSON, K_BYTES };

/* Where a fact's column comes from. */
enum source {
    S_DATA, S_KEY, S_TENANT, S_EVENT_ID, S_SOURCE, S_EXTENSIONS, S_DIGEST, S_EVENT_TIME,
    S_ENTITY_TYPE, S_ENTITY_ID, S_TYPE, S_WHOLE_DATA
};

struct column {
    const char *name;
    enum kind kind;
    enum source source;
    bool or_event_time;    /* the event's time where the member is absent */
    const char *otherwise; /* JSON that counts where the member is absent, or NULL */
};

struct parent {
    const char *column;
    int entity;
};

struct fact {
    const char *copy; /* COPY … FROM STDIN (FORMAT binary) */
    int columns;
    const struct column *column;
    int parents;
    const struct parent *parent;
    int keys;
    const char *const *key;
};

/* Where a column of a folded row comes from. */
enum role {
    R_KEY, R_TENANT, R_STATUS, R_ATTEMPT, R_CREATED, R_OWN, R_CLOCKS, R_PLACEHOLDER, R_CREATED_AT,
    R_VERSION, R_ORDINALITY
};

struct entity_column {
    const char *name;
    enum kind kind;
    enum role role;
    int reg; /* its register, or -1 */
    bool attempt_owned;
    bool if_empty;
};

#define MAX_REGISTERS 24
#define MAX_COLUMNS 40

struct entity {
    const char *name;
    const char *key;
    bool has_attempts;
    int registers;
    const char *const *reg; /* registers 0 and 1 are "created" and "status" */
    int ended;              /* the register "ended", or -1 */
    int columns;
    const struct entity_column *column;
    const char *create_stage, *copy_stage, *merge;
    const char *create_named, *copy_named, *placeholders;
};

/* What one event type does to its entity. */
struct fold {
    int entity;
    const char *status;
    int rank;
    bool creates, ends, at_if_empty;
    int sets;
    const int *set; /* columns that take the member of their name */
    int ats;
    const int *at; /* columns that take the event's time */
    int parents;
    const struct parent *parent;
};

struct event {
    const char *type;
    const char *family;
    const struct fact *fact; /* the table of its row; of entities, lifecycle_events */
    const struct fold *fold; /* NULL for facts */
};

#endif
