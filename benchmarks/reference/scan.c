/* The scanner: one pass over a body, which remembers where the members of the event and of its `data` are. */
#include "scan.h"

#include <stdio.h>

extern const struct event events[];
extern const int event_count;

static void fail(const char *why, const char *at)
{
    fprintf(stderr, "not an event: %s at %.40s\n", why, at);
    exit(1);
}

static const char *blank(const char *at)
{
    while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')
        at++;
    return at;
}

/* The closing quote of a string that begins behind `at`; says whether there was a backslash. */
static const char *string_end(const char *at, const char *end, bool *escaped)
{
    const char *from = at;
    for (;;) {
        const char *quote = memchr(from, '"', (size_t)(end - from));
        if (quote == NULL)
            fail("a string without an end", at);
        const char *back = quote;
        while (back > at && back[-1] == '\\')
            back--;
        if (((quote - back) & 1) == 0) {
            if (escaped != NULL)
                *escaped = memchr(at, '\\', (size_t)(quote - at)) != NULL;
            return quote;
        }
        from = quote + 1;
    }
}

static const char *nested_end(const char *at, const char *end)
{
    int depth = 0;
    for (; at < end; at++) {
        switch (*at) {
        case '{': case '[':
            depth++;
            break;
        case '}': case ']':
            if (--depth == 0)
                return at + 1;
            break;
        case '"':
            at = string_end(at + 1, end, NULL);
            break;
        }
    }
    fail("brackets without an end", at);
    return NULL;
}

static const char *read_value(const char *at, const char *end, struct value *value)
{
    value->at = at;
    switch (*at) {
    case '"': {
        bool escaped;
        value->at = at + 1;
        at = string_end(at + 1, end, &escaped);
        value->type = escaped ? V_ESCAPED : V_STRING;
        value->size = (size_t)(at - value->at);
        return at + 1;
    }
    case '{': case '[':
        value->type = V_NESTED;
        at = nested_end(at, end);
        break;
    case 't':
        value->type = V_TRUE;
        at += 4;
        break;
    case 'f':
        value->type = V_FALSE;
        at += 5;
        break;
    case 'n':
        value->type = V_NULL;
        at += 4;
        break;
    default:
        value->type = V_NUMBER;
        while (at < end && strchr("+-.0123456789eE", *at) != NULL)
            at++;
    }
    value->size = (size_t)(at - value->at);
    return at;
}

/* Call `take` with each member of the object at `at`; returns what comes behind it. */
static const char *read_object(const char *at, const char *end, struct message *message,
                               const char *(*take)(struct message *, const char *, size_t, const char *,
                                                   const char *))
{
    at = blank(at);
    if (*at != '{')
        fail("no object", at);
    at = blank(at + 1);
    while (*at == '"') {
        const char *name = at + 1;
        const char *name_end = string_end(name, end, NULL);
        at = blank(name_end + 1);
        if (*at != ':')
            fail("no colon", at);
        at = blank(take(message, name, (size_t)(name_end - name), blank(at + 1), end));
        if (*at == ',')
            at = blank(at + 1);
    }
    if (*at != '}')
        fail("no end of an object", at);
    return at + 1;
}

static bool is(const char *name, size_t size, const char *other)
{
    return strlen(other) == size && memcmp(name, other, size) == 0;
}

static const char *take_member(struct message *message, const char *name, size_t size, const char *at,
                               const char *end)
{
    if (message->members == MAX_MEMBERS)
        fail("too many members", at);
    struct member *member = &message->member[message->members++];
    member->name = name;
    member->size = size;
    return read_value(at, end, &member->value);
}

static void take_extension(struct message *message, const char *name, size_t size, const char *from,
                           const char *to)
{
    struct buffer *all = &message->extensions;
    put_text(all, all->size == 0 ? "{\"" : ",\"");
    put(all, name, size);
    put_text(all, "\":");
    put(all, from, (size_t)(to - from));
}

static const char *take_attribute(struct message *message, const char *name, size_t size, const char *at,
                                  const char *end)
{
    struct value value, *known = NULL;
    if (is(name, size, "data")) {
        const char *behind = read_object(at, end, message, take_member);
        message->data = (struct value){V_NESTED, at, (size_t)(behind - at), 0};
        return behind;
    }
    if (is(name, size, "id"))
        known = &message->id;
    else if (is(name, size, "source"))
        known = &message->source;
    else if (is(name, size, "type"))
        known = &message->type;
    else if (is(name, size, "tenantid"))
        known = &message->tenant;
    const char *behind = read_value(at, end, known != NULL ? known : &value);
    if (known != NULL)
        return behind;
    if (is(name, size, "time"))
        message->time = parse_time(value.at, value.size);
    else if (!is(name, size, "specversion") && !is(name, size, "datacontenttype") && value.type != V_NULL)
        take_extension(message, name, size, at, behind);
    return behind;
}

/* Two lanes of multiply and rotate: 128 bits of any quality. */
static void digest(const char *at, size_t size, uint8_t out[16])
{
    uint64_t one = 0x9E3779B97F4A7C15u ^ size, two = 0xC2B2AE3D27D4EB4Fu, word;
    for (; size >= 8; at += 8, size -= 8) {
        memcpy(&word, at, 8);
        one = (one ^ word) * 0xFF51AFD7ED558CCDu;
        one ^= one >> 32;
        two = (two + word) * 0xC4CEB9FE1A85EC53u;
        two ^= two >> 29;
    }
    for (; size > 0; at++, size--)
        one = (one ^ (uint8_t)*at) * 0x100000001B3u;
    two ^= one;
    memcpy(out, &one, 8);
    memcpy(out + 8, &two, 8);
}

void scan(struct message *message, const char *body, size_t size)
{
    message->members = 0;
    message->extensions.size = 0;
    message->tenant = (struct value){V_STRING, "default", 7, 0};
    read_object(body, body + size, message, take_attribute);
    if (message->extensions.size > 0)
        put_text(&message->extensions, "}");
    message->event = NULL;
    for (int at = 0; at < event_count && message->event == NULL; at++)
        if (is(message->type.at, message->type.size, events[at].type))
            message->event = &events[at];
    if (message->event == NULL)
        fail("an unknown type", message->type.at);
    parse_uuid(&message->id, message->uuid);
    digest(message->data.at, message->data.size, message->digest);
}

struct value find(const struct message *message, const char *name)
{
    size_t size = strlen(name);
    for (int at = 0; at < message->members; at++)
        if (message->member[at].size == size && memcmp(message->member[at].name, name, size) == 0)
            return message->member[at].value;
    return (struct value){V_ABSENT, NULL, 0, 0};
}

static int hex(char digit)
{
    return digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10;
}

void parse_uuid(const struct value *value, uint8_t uuid[16])
{
    const char *at = value->at;
    if (value->size != 36)
        fail("no UUID", at);
    for (int byte = 0; byte < 16; byte++) {
        if (*at == '-')
            at++;
        uuid[byte] = (uint8_t)(hex(at[0]) << 4 | hex(at[1]));
        at += 2;
    }
}

static int number(const char *at, int digits)
{
    int value = 0;
    while (digits-- > 0)
        value = value * 10 + (*at++ - '0');
    return value;
}

#define DAY 86400000000LL
#define DAYS_TO_2000 10957

int64_t parse_time(const char *text, size_t size)
{
    const char *end = text + size, *at = text + 19;
    int64_t year = number(text, 4), month = number(text + 5, 2), day = number(text + 8, 2);
    /* Days since 1970 of a civil date, counting years from March. */
    year -= month <= 2;
    int64_t era = year / 400, of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t days = era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
    int64_t seconds = number(text + 11, 2) * 3600 + number(text + 14, 2) * 60 + number(text + 17, 2);
    int64_t micros = 0;
    if (at < end && *at == '.') {
        int64_t unit = 100000;
        for (at++; at < end && *at >= '0' && *at <= '9'; at++, unit /= 10)
            micros += (*at - '0') * unit;
    }
    if (at + 5 < end)
        seconds -= (*at == '-' ? -1 : 1) * (number(at + 1, 2) * 3600 + number(at + 4, 2) * 60);
    return (days - DAYS_TO_2000) * DAY + seconds * 1000000 + micros;
}

static char *digits(char *at, int64_t value, int count)
{
    for (int place = count - 1; place >= 0; place--, value /= 10)
        at[place] = (char)('0' + value % 10);
    return at + count;
}

void time_text(int64_t time, char text[26])
{
    int64_t days = time / DAY, rest = time % DAY;
    if (rest < 0) {
        days--;
        rest += DAY;
    }
    days += DAYS_TO_2000 + 719468;
    int64_t era = days / 146097, of_era = days % 146097;
    int64_t years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * years + years / 4 - years / 100);
    int64_t month = (5 * of_year + 2) / 153;
    int64_t day = of_year - (153 * month + 2) / 5 + 1;
    month += month < 10 ? 3 : -9;
    text = digits(text, era * 400 + years + (month <= 2), 4);
    *text++ = '-';
    text = digits(text, month, 2);
    *text++ = '-';
    text = digits(text, day, 2);
    *text++ = 'T';
    text = digits(text, rest / 3600000000LL, 2);
    *text++ = ':';
    text = digits(text, rest / 60000000LL % 60, 2);
    *text++ = ':';
    text = digits(text, rest / 1000000LL % 60, 2);
    *text++ = '.';
    digits(text, rest % 1000000, 6);
}

static size_t put_utf8(char *to, unsigned code)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        to[0] = (char)(0xC0 | code >> 6);
        to[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        to[0] = (char)(0xE0 | code >> 12);
        to[1] = (char)(0x80 | (code >> 6 & 0x3F));
        to[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    to[0] = (char)(0xF0 | code >> 18);
    to[1] = (char)(0x80 | (code >> 12 & 0x3F));
    to[2] = (char)(0x80 | (code >> 6 & 0x3F));
    to[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

static unsigned code_unit(const char *at)
{
    return (unsigned)(hex(at[0]) << 12 | hex(at[1]) << 8 | hex(at[2]) << 4 | hex(at[3]));
}

static size_t unescape(const struct value *value, char *to)
{
    char *begin = to;
    for (const char *at = value->at, *end = at + value->size; at < end; at++) {
        if (*at != '\\') {
            *to++ = *at;
            continue;
        }
        switch (*++at) {
        case 'n': *to++ = '\n'; break;
        case 't': *to++ = '\t'; break;
        case 'r': *to++ = '\r'; break;
        case 'b': *to++ = '\b'; break;
        case 'f': *to++ = '\f'; break;
        case 'u': {
            unsigned code = code_unit(at + 1);
            at += 4;
            if (code >= 0xD800 && code < 0xDC00) {
                code = 0x10000 + ((code & 0x3FF) << 10 | (code_unit(at + 3) & 0x3FF));
                at += 6;
            }
            to += put_utf8(to, code);
            break;
        }
        default: *to++ = *at;
        }
    }
    return (size_t)(to - begin);
}

static void put_string(struct buffer *buffer, const struct value *value)
{
    if (value->type != V_ESCAPED) {
        put_field(buffer, value->at, value->size);
        return;
    }
    reserve(buffer, value->size + 4);
    size_t place = buffer->size;
    buffer->size += 4;
    size_t size = unescape(value, buffer->bytes + buffer->size);
    uint32_t length = htonl((uint32_t)size);
    memcpy(buffer->bytes + place, &length, 4);
    buffer->size += size;
}

static void put_json(struct buffer *buffer, const struct value *value)
{
    int quote = value->type == V_STRING || value->type == V_ESCAPED;
    put32(buffer, (uint32_t)(value->size + 2 * (size_t)quote + 1));
    put(buffer, "\1", 1);
    put(buffer, value->at - quote, value->size + 2 * (size_t)quote);
}

void put_value(struct buffer *buffer, enum kind kind, const struct value *value)
{
    uint8_t uuid[16];
    double real;
    uint64_t bits;
    if (value->type == V_ABSENT || value->type == V_NULL) {
        put_null(buffer);
        return;
    }
    switch (kind) {
    case K_UUID:
        parse_uuid(value, uuid);
        put_field(buffer, uuid, 16);
        break;
    case K_TEXT: case K_BYTES:
        put_string(buffer, value);
        break;
    case K_INT4:
        put32(buffer, 4);
        put32(buffer, (uint32_t)strtol(value->at, NULL, 10));
        break;
    case K_INT8:
        put32(buffer, 8);
        put64(buffer, (uint64_t)strtoll(value->at, NULL, 10));
        break;
    case K_FLOAT8:
        real = strtod(value->at, NULL);
        memcpy(&bits, &real, 8);
        put32(buffer, 8);
        put64(buffer, bits);
        break;
    case K_BOOL:
        put_field(buffer, value->type == V_TRUE ? "\1" : "\0", 1);
        break;
    case K_TIME:
        put32(buffer, 8);
        put64(buffer, (uint64_t)(value->type == V_TIME ? value->time : parse_time(value->at, value->size)));
        break;
    case K_JSON:
        put_json(buffer, value);
        break;
    }
}
