/* One row an entity of a batch: the winning value and clock of every register that the batch touched. */
#include "fold.h"

#include <stdio.h>

#define CLOCK 70 /* attempt 10, rank 2, time 26, id 32 */
#define ABOVE_ALL 9999999999LL
#define SLOTS 32768

extern const struct entity entities[];
extern const int entity_count;

struct folded {
    int entity;
    unsigned slot;
    uint8_t key[16];
    struct value tenant;
    int64_t created_at;
    int64_t attempt;
    int version;
    bool has[MAX_REGISTERS];
    char clock[MAX_REGISTERS][CLOCK];
    struct value value[MAX_COLUMNS]; /* the first, the key's, holds the status */
};

struct folding {
    struct folded *row;
    int rows, room;
    int slot[SLOTS]; /* 1 + row, or 0 */
    struct folded **sorted;
    struct buffer clocks;
};

struct folding *new_folding(void)
{
    return calloc(1, sizeof(struct folding));
}

static unsigned slot_of(int entity, const uint8_t key[16])
{
    uint64_t low, high;
    memcpy(&high, key, 8);
    memcpy(&low, key + 8, 8);
    return (unsigned)(((low ^ high * 0x9E3779B97F4A7C15u) + (unsigned)entity) * 0xFF51AFD7ED558CCDu >> 49);
}

void fold_begin(struct folding *folding)
{
    for (int at = 0; at < folding->rows; at++)
        folding->slot[folding->row[at].slot] = 0;
    folding->rows = 0;
}

static struct folded *row_of(struct folding *folding, int entity, const uint8_t key[16],
                             const struct message *message, bool *fresh)
{
    unsigned slot = slot_of(entity, key);
    for (; folding->slot[slot] != 0; slot = (slot + 1) % SLOTS) {
        struct folded *row = &folding->row[folding->slot[slot] - 1];
        if (row->entity == entity && memcmp(row->key, key, 16) == 0 &&
            row->tenant.size == message->tenant.size &&
            memcmp(row->tenant.at, message->tenant.at, row->tenant.size) == 0) {
            *fresh = false;
            return row;
        }
    }
    if (folding->rows == folding->room) {
        folding->room = folding->room == 0 ? 1024 : folding->room * 2;
        folding->row = realloc(folding->row, (size_t)folding->room * sizeof(struct folded));
        folding->sorted = realloc(folding->sorted, (size_t)folding->room * sizeof(struct folded *));
    }
    struct folded *row = &folding->row[folding->rows++];
    folding->slot[slot] = folding->rows;
    row->entity = entity;
    row->slot = slot;
    memcpy(row->key, key, 16);
    row->tenant = message->tenant;
    row->created_at = message->time;
    row->attempt = 1;
    row->version = 0;
    memset(row->has, 0, sizeof row->has);
    for (int at = 0; at < entities[entity].columns; at++)
        row->value[at].type = V_ABSENT;
    *fresh = true;
    return row;
}

static void make_clock(char clock[CLOCK], int64_t attempt, int rank, const struct message *message)
{
    static const char digit[] = "0123456789abcdef";
    for (int at = 9; at >= 0; at--, attempt /= 10)
        clock[at] = (char)('0' + attempt % 10);
    clock[10] = (char)('0' + rank / 10);
    clock[11] = (char)('0' + rank % 10);
    time_text(message->time, clock + 12);
    for (int at = 0; at < 16; at++) {
        clock[38 + 2 * at] = digit[message->uuid[at] >> 4];
        clock[39 + 2 * at] = digit[message->uuid[at] & 15];
    }
}

static bool wins(struct folded *row, int reg, const char clock[CLOCK])
{
    if (row->has[reg] && memcmp(clock, row->clock[reg], CLOCK) <= 0)
        return false;
    memcpy(row->clock[reg], clock, CLOCK);
    row->has[reg] = true;
    return true;
}

void name_parent(struct folding *folding, int entity, const struct value *key, const struct message *message)
{
    uint8_t uuid[16];
    bool fresh;
    if (key->type != V_STRING)
        return;
    parse_uuid(key, uuid);
    struct folded *row = row_of(folding, entity, uuid, message, &fresh);
    if (!row->has[0] && message->time < row->created_at)
        row->created_at = message->time;
}

static void set_columns(struct folded *row, const struct fold *fold, const struct message *message,
                        const char clock[CLOCK], bool created_wins)
{
    const struct entity *entity = &entities[fold->entity];
    for (int at = 0; at < fold->sets; at++) {
        const struct entity_column *column = &entity->column[fold->set[at]];
        struct value value = find(message, column->name);
        if (column->role == R_CREATED) {
            if (created_wins)
                row->value[fold->set[at]] = value;
        } else if (value.type != V_ABSENT && value.type != V_NULL && wins(row, column->reg, clock))
            row->value[fold->set[at]] = value;
    }
    for (int at = 0; at < fold->ats; at++)
        if (wins(row, entity->column[fold->at[at]].reg, clock))
            row->value[fold->at[at]] = (struct value){V_TIME, NULL, 0, message->time};
}

void fold_message(struct folding *folding, const struct message *message)
{
    const struct fold *fold = message->event->fold;
    const struct entity *entity = &entities[fold->entity];
    struct value key = find(message, entity->key), given = find(message, "attempt");
    bool has_attempt = given.type == V_NUMBER, fresh, created_wins = false;
    int64_t attempt = has_attempt ? strtoll(given.at, NULL, 10) : 1;
    uint8_t uuid[16];
    char clock[CLOCK], end_clock[CLOCK];

    parse_uuid(&key, uuid);
    struct folded *row = row_of(folding, fold->entity, uuid, message, &fresh);
    make_clock(clock, attempt, 0, message);
    if (fold->creates) {
        created_wins = wins(row, 0, clock);
        if (created_wins)
            row->created_at = message->time;
    } else if (!row->has[0] && message->time < row->created_at)
        row->created_at = message->time;
    if (attempt > row->attempt)
        row->attempt = attempt;
    row->version++;
    set_columns(row, fold, message, clock, created_wins);
    int64_t counted = fold->ends && !has_attempt && entity->has_attempts ? ABOVE_ALL : attempt;
    make_clock(end_clock, counted, fold->rank, message);
    if (fold->status != NULL && wins(row, 1, end_clock))
        row->value[0] = (struct value){V_STRING, fold->status, strlen(fold->status), 0};
    if (fold->at_if_empty) {
        make_clock(end_clock, counted, 0, message);
        wins(row, entity->ended, end_clock);
    }
    for (int at = 0; at < fold->parents; at++) {
        struct value parent = find(message, fold->parent[at].column);
        name_parent(folding, fold->parent[at].entity, &parent, message);
    }
}

static int64_t clock_attempt(const char clock[CLOCK])
{
    int64_t attempt = 0;
    for (int at = 0; at < 10; at++)
        attempt = attempt * 10 + (clock[at] - '0');
    return attempt;
}

static bool is_current(const struct folded *row, int reg)
{
    return row->has[reg] && clock_attempt(row->clock[reg]) >= row->attempt;
}

static void put_clocks(struct buffer *rows, struct folding *folding, const struct folded *row)
{
    const struct entity *entity = &entities[row->entity];
    struct buffer *text = &folding->clocks;
    text->size = 0;
    for (int reg = 0; reg < entity->registers; reg++) {
        if (!row->has[reg])
            continue;
        put_text(text, text->size == 0 ? "{\"" : ",\"");
        put_text(text, entity->reg[reg]);
        put_text(text, "\":\"");
        put(text, row->clock[reg], CLOCK);
        put_text(text, "\"");
    }
    put_text(text, text->size == 0 ? "{}" : "}");
    struct value value = {V_NESTED, text->bytes, text->size, 0};
    put_value(rows, K_JSON, &value);
}

/* The value that a row shows: what an older attempt owned is gone, an end fills an empty time. */
static void put_own(struct buffer *rows, const struct folded *row, int at)
{
    const struct entity *entity = &entities[row->entity];
    const struct entity_column *column = &entity->column[at];
    bool shown = row->has[column->reg] && (!column->attempt_owned || is_current(row, column->reg));
    if (shown)
        put_value(rows, column->kind, &row->value[at]);
    else if (column->if_empty && row->has[entity->ended] &&
             (!column->attempt_owned || is_current(row, entity->ended))) {
        const char *text = row->clock[entity->ended] + 12;
        put32(rows, 8);
        put64(rows, (uint64_t)parse_time(text, 26));
    } else
        put_null(rows);
}

static void put_row(struct buffer *rows, struct folding *folding, const struct folded *row, int ordinal)
{
    const struct entity *entity = &entities[row->entity];
    put16(rows, (uint16_t)entity->columns);
    for (int at = 0; at < entity->columns; at++) {
        const struct entity_column *column = &entity->column[at];
        switch (column->role) {
        case R_KEY: put_field(rows, row->key, 16); break;
        case R_TENANT: put_field(rows, row->tenant.at, row->tenant.size); break;
        case R_STATUS: put_value(rows, K_TEXT, &row->value[0]); break;
        case R_ATTEMPT: put32(rows, 4); put32(rows, (uint32_t)row->attempt); break;
        case R_CREATED: put_value(rows, column->kind, &row->value[at]); break;
        case R_OWN: put_own(rows, row, at); break;
        case R_CLOCKS: put_clocks(rows, folding, row); break;
        case R_PLACEHOLDER: put_field(rows, row->has[0] ? "\0" : "\1", 1); break;
        case R_CREATED_AT: put32(rows, 8); put64(rows, (uint64_t)row->created_at); break;
        case R_VERSION: put32(rows, 4); put32(rows, (uint32_t)row->version); break;
        case R_ORDINALITY: put32(rows, 4); put32(rows, (uint32_t)ordinal); break;
        }
    }
}

static void put_name(struct buffer *rows, const struct folded *row, int ordinal)
{
    put16(rows, 4);
    put_field(rows, row->key, 16);
    put_field(rows, row->tenant.at, row->tenant.size);
    put32(rows, 8);
    put64(rows, (uint64_t)row->created_at);
    put32(rows, 4);
    put32(rows, (uint32_t)ordinal);
}

static int compare(const void *one, const void *other)
{
    return memcmp((*(struct folded *const *)one)->key, (*(struct folded *const *)other)->key, 16);
}

int fold_rows(struct folding *folding, int entity, struct buffer *rows, bool *changes)
{
    int count = 0;
    *changes = false;
    for (int at = 0; at < folding->rows; at++)
        if (folding->row[at].entity == entity) {
            folding->sorted[count++] = &folding->row[at];
            *changes = *changes || folding->row[at].version > 0;
        }
    qsort(folding->sorted, (size_t)count, sizeof *folding->sorted, compare);
    put_copy_header(rows);
    for (int at = 0; at < count; at++) {
        if (*changes)
            put_row(rows, folding, folding->sorted[at], at);
        else
            put_name(rows, folding->sorted[at], at);
    }
    put16(rows, (uint16_t)-1);
    return count;
}
