/* The transaction: COPY of the facts, a staging COPY and the merge for entities, COMMIT. */
#include "store.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <time.h>

#include "fold.h"

extern const struct fact facts[];
extern const int fact_count;
extern const struct entity entities[];
extern const int entity_count;

struct store {
    PGconn *connection;
    char name[64];
    struct message *messages;
    struct folding *folding;
    struct buffer *rows; /* one a fact */
    struct buffer staged;
};

static void check(struct store *store, PGresult *result, ExecStatusType wanted)
{
    if (PQresultStatus(result) != wanted) {
        fprintf(stderr, "PostgreSQL: %s", PQerrorMessage(store->connection));
        exit(1);
    }
    PQclear(result);
}

static void run(struct store *store, const char *sql)
{
    check(store, PQexec(store->connection, sql), PGRES_COMMAND_OK);
}

static void prepare(struct store *store, const char *kind, int entity, const char *sql)
{
    char name[32];
    snprintf(name, sizeof name, "%s_%d", kind, entity);
    check(store, PQprepare(store->connection, name, sql, 0, NULL), PGRES_COMMAND_OK);
}

struct store *open_store(const char *name, int most_messages)
{
    struct store *store = calloc(1, sizeof *store);
    store->connection = PQconnectdb("");
    if (PQstatus(store->connection) != CONNECTION_OK) {
        fprintf(stderr, "PostgreSQL: %s", PQerrorMessage(store->connection));
        exit(1);
    }
    snprintf(store->name, sizeof store->name, "%s", name);
    store->messages = calloc((size_t)most_messages, sizeof *store->messages);
    store->folding = new_folding();
    store->rows = calloc((size_t)fact_count, sizeof *store->rows);
    run(store, "SET TimeZone = 'UTC'; SET client_min_messages = warning");
    for (int at = 0; at < entity_count; at++) {
        run(store, entities[at].create_stage);
        run(store, entities[at].create_named);
        prepare(store, "merge", at, entities[at].merge);
        prepare(store, "named", at, entities[at].placeholders);
    }
    return store;
}

static void put_time(struct buffer *row, int64_t time)
{
    put32(row, 8);
    put64(row, (uint64_t)time);
}

static struct value key_member(const struct message *message, const char *name)
{
    struct value value = find(message, name);
    return value.type == V_STRING ? value : message->id;
}

static void put_column(struct buffer *row, const struct column *column, const struct message *message)
{
    struct value value;
    switch (column->source) {
    case S_DATA:
        value = find(message, column->name);
        if (value.type <= V_NULL && column->or_event_time) {
            put_time(row, message->time);
            return;
        }
        if (value.type <= V_NULL && column->otherwise != NULL) {
            bool nested = column->kind == K_JSON;
            value = (struct value){nested ? V_NESTED : V_STRING, column->otherwise, strlen(column->otherwise), 0};
        }
        put_value(row, column->kind, &value);
        break;
    case S_KEY:
        value = key_member(message, column->name);
        put_value(row, K_UUID, &value);
        break;
    case S_TENANT: put_value(row, K_TEXT, &message->tenant); break;
    case S_EVENT_ID: put_field(row, message->uuid, 16); break;
    case S_SOURCE: put_value(row, K_TEXT, &message->source); break;
    case S_EXTENSIONS:
        value = (struct value){message->extensions.size > 0 ? V_NESTED : V_NULL, message->extensions.bytes,
                               message->extensions.size, 0};
        put_value(row, K_JSON, &value);
        break;
    case S_DIGEST: put_field(row, message->digest, 16); break;
    case S_EVENT_TIME: put_time(row, message->time); break;
    case S_ENTITY_TYPE: put_field(row, entities[message->event->fold->entity].name,
                                  strlen(entities[message->event->fold->entity].name)); break;
    case S_ENTITY_ID:
        value = find(message, entities[message->event->fold->entity].key);
        put_value(row, K_TEXT, &value);
        break;
    case S_TYPE: put_value(row, K_TEXT, &message->type); break;
    case S_WHOLE_DATA: put_value(row, K_JSON, &message->data); break;
    }
}

static void add_row(struct store *store, const struct message *message)
{
    const struct fact *fact = message->event->fact;
    struct buffer *rows = &store->rows[fact - facts];
    if (rows->size == 0)
        put_copy_header(rows);
    put16(rows, (uint16_t)fact->columns);
    for (int at = 0; at < fact->columns; at++)
        put_column(rows, &fact->column[at], message);
    if (message->event->fold != NULL) {
        fold_message(store->folding, message);
        return;
    }
    for (int at = 0; at < fact->parents; at++) {
        struct value key = find(message, fact->parent[at].column);
        name_parent(store->folding, fact->parent[at].entity, &key, message);
    }
}

static void copy(struct store *store, const char *sql, const struct buffer *rows)
{
    check(store, PQexec(store->connection, sql), PGRES_COPY_IN);
    if (PQputCopyData(store->connection, rows->bytes, (int)rows->size) != 1 ||
        PQputCopyEnd(store->connection, NULL) != 1)
        fprintf(stderr, "PostgreSQL: %s", PQerrorMessage(store->connection));
    PGresult *result;
    while ((result = PQgetResult(store->connection)) != NULL)
        check(store, result, PGRES_COMMAND_OK);
}

static void merge_entities(struct store *store)
{
    char name[32];
    for (int at = 0; at < entity_count; at++) {
        bool changes;
        if (fold_rows(store->folding, at, &store->staged, &changes) == 0)
            continue;
        copy(store, changes ? entities[at].copy_stage : entities[at].copy_named, &store->staged);
        snprintf(name, sizeof name, "%s_%d", changes ? "merge" : "named", at);
        check(store, PQexecPrepared(store->connection, name, 0, NULL, NULL, NULL, 0), PGRES_COMMAND_OK);
    }
}

static void put_key(struct buffer *body, const struct message *message)
{
    const struct fact *fact = message->event->fact;
    for (int at = 0; at < fact->keys; at++) {
        struct value key = message->event->fold != NULL ? message->id : key_member(message, fact->key[at]);
        if (at > 0)
            put_text(body, "/");
        put(body, key.at, key.size);
    }
}

static void put_item(struct buffer *body, const struct message *message)
{
    put_text(body, "{\"id\":\"");
    put(body, message->id.at, message->id.size);
    put_text(body, "\",\"type\":\"");
    put(body, message->type.at, message->type.size);
    put_text(body, "\",\"key\":\"");
    put_key(body, message);
    put_text(body, "\",\"source\":\"");
    put(body, message->source.at, message->source.size);
    put_text(body, "\"}");
}

static struct confirmation *begin_confirmation(struct store *store, const struct message *message,
                                               struct confirmation *next)
{
    struct confirmation *confirmation = calloc(1, sizeof *confirmation);
    struct timespec now;
    char when[40];
    clock_gettime(CLOCK_REALTIME, &now);
    time_text(((int64_t)now.tv_sec - 946684800) * 1000000 + now.tv_nsec / 1000, when);
    when[26] = 'Z';
    when[27] = 0;
    confirmation->family = message->event->family;
    confirmation->next = next;
    struct buffer *body = &confirmation->body;
    put_text(body, "{\"specversion\":\"1.0\",\"id\":\"");
    put(body, message->id.at, message->id.size); /* as good as any: ids of events are unique */
    put_text(body, "\",\"source\":\"/workers/");
    put_text(body, store->name);
    put_text(body, "\",\"type\":\"persistence.confirmed\",\"time\":\"");
    put_text(body, when);
    put_text(body, "\",\"datacontenttype\":\"application/json\",\"tenantid\":\"default\",\"data\":{\"family\":\"");
    put_text(body, message->event->family);
    put_text(body, "\",\"outcome\":\"persisted\",\"tenant\":\"default\",\"worker\":\"");
    put_text(body, store->name);
    put_text(body, "\",\"committed_at\":\"");
    put_text(body, when);
    put_text(body, "\",\"items\":[");
    return confirmation;
}

static struct confirmation *confirmations(struct store *store, int count, int one_a_message)
{
    struct confirmation *first = NULL;
    for (int at = 0; at < count; at++) {
        const struct message *message = &store->messages[at];
        struct confirmation *mine = first;
        while (!one_a_message && mine != NULL && strcmp(mine->family, message->event->family) != 0)
            mine = mine->next;
        if (one_a_message || mine == NULL)
            mine = first = begin_confirmation(store, message, first);
        else
            put_text(&mine->body, ",");
        put_item(&mine->body, message);
    }
    for (struct confirmation *at = first; at != NULL; at = at->next)
        put_text(&at->body, "]}}");
    return first;
}

struct confirmation *store_batch(struct store *store, const amqp_bytes_t *bodies, int count, int one_a_message)
{
    fold_begin(store->folding);
    for (int at = 0; at < fact_count; at++)
        store->rows[at].size = 0;
    for (int at = 0; at < count; at++) {
        scan(&store->messages[at], bodies[at].bytes, bodies[at].len);
        add_row(store, &store->messages[at]);
    }
    run(store, "BEGIN");
    for (int at = 0; at < fact_count; at++)
        if (store->rows[at].size > 0) {
            put16(&store->rows[at], (uint16_t)-1);
            copy(store, facts[at].copy, &store->rows[at]);
        }
    merge_entities(store); /* last: the other connection waits for the entities that both name */
    run(store, "COMMIT");
    return confirmations(store, count, one_a_message);
}
