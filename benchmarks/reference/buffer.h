/* A growing run of bytes, and the binary format of COPY. */
#ifndef BUFFER_H
#define BUFFER_H

#include <arpa/inet.h>
#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct buffer {
    char *bytes;
    size_t size, room;
};

static inline char *reserve(struct buffer *buffer, size_t more)
{
    if (buffer->size + more > buffer->room) {
        buffer->room = (buffer->size + more) * 2;
        buffer->bytes = realloc(buffer->bytes, buffer->room);
        if (buffer->bytes == NULL)
            abort();
    }
    return buffer->bytes + buffer->size;
}

static inline void put(struct buffer *buffer, const void *bytes, size_t size)
{
    memcpy(reserve(buffer, size), bytes, size);
    buffer->size += size;
}

static inline void put_text(struct buffer *buffer, const char *text)
{
    put(buffer, text, strlen(text));
}

static inline void put16(struct buffer *buffer, uint16_t value)
{
    value = htons(value);
    put(buffer, &value, 2);
}

static inline void put32(struct buffer *buffer, uint32_t value)
{
    value = htonl(value);
    put(buffer, &value, 4);
}

static inline void put64(struct buffer *buffer, uint64_t value)
{
    value = htobe64(value);
    put(buffer, &value, 8);
}

static inline void put_null(struct buffer *buffer)
{
    put32(buffer, (uint32_t)-1);
}

static inline void put_field(struct buffer *buffer, const void *bytes, size_t size)
{
    put32(buffer, (uint32_t)size);
    put(buffer, bytes, size);
}

static inline void put_copy_header(struct buffer *buffer)
{
    buffer->size = 0;
    put(buffer, "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
}

#endif
