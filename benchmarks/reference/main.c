/* The limit: consume with prefetch, persist in batches with COPY, confirm with publisher confirms, acknowledge.
 *
 * One thread reads and writes AMQP; two threads have a connection to PostgreSQL each, so that one transaction runs
 * while another commits. A batch is what has arrived while both were busy, 500 messages at most. Messages are
 * acknowledged after the commit, once the broker has the event that confirms them.
 *
 * usage: reference QUEUE... (environment: AMQP_HOST AMQP_PORT AMQP_USER AMQP_PASSWORD AMQP_VHOST, libpq's PG…,
 * ONE_A_MESSAGE=1 for an event a message). Runs until SIGTERM. No validation, no duplicates, no outbox, no retries.
 */
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "store.h"

#define WRITERS 2
#define MOST 500
#define PREFETCH 2000
#define OPEN_PUBLISHES 65536

struct batch {
    amqp_bytes_t bodies[MOST];
    int count;
    uint64_t last_tag;
    struct confirmation *confirmations;
    int unconfirmed;
    bool settled;
    struct batch *next;       /* in the list of work or of results */
    struct batch *next_taken; /* in the order of delivery */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work_came;
    struct batch *work, *work_end, *done, *done_end;
    int busy;
    int wake; /* an eventfd: results came */
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER, .work_came = PTHREAD_COND_INITIALIZER};

static bool one_a_message;
static amqp_connection_state_t consuming, publishing;
static amqp_bytes_t waiting[PREFETCH * 8];
static unsigned waiting_from, waiting_count;
static uint64_t last_tag;
static struct batch *publish_of[OPEN_PUBLISHES];
static uint64_t published, confirmed_to;
static struct batch *oldest, *newest;

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    if (value == NULL) {
        fprintf(stderr, "%s is not set\n", name);
        exit(2);
    }
    return value;
}

static void check(amqp_rpc_reply_t reply, const char *what)
{
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
        fprintf(stderr, "RabbitMQ: %s failed (%s)\n", what, amqp_error_string2(reply.library_error));
        exit(1);
    }
}

static amqp_connection_state_t connect_amqp(void)
{
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (amqp_socket_open(socket, setting("AMQP_HOST"), atoi(setting("AMQP_PORT"))) != AMQP_STATUS_OK) {
        fprintf(stderr, "RabbitMQ does not answer\n");
        exit(1);
    }
    check(amqp_login(connection, setting("AMQP_VHOST"), 0, 131072, 0, AMQP_SASL_METHOD_PLAIN,
                     setting("AMQP_USER"), setting("AMQP_PASSWORD")), "login");
    amqp_channel_open(connection, 1);
    check(amqp_get_rpc_reply(connection), "opening a channel");
    return connection;
}

static void *writer(void *store)
{
    for (;;) {
        pthread_mutex_lock(&shared.lock);
        while (shared.work == NULL)
            pthread_cond_wait(&shared.work_came, &shared.lock);
        struct batch *batch = shared.work;
        shared.work = batch->next;
        pthread_mutex_unlock(&shared.lock);

        batch->confirmations = store_batch(store, batch->bodies, batch->count, one_a_message);
        for (int at = 0; at < batch->count; at++)
            amqp_bytes_free(batch->bodies[at]);

        pthread_mutex_lock(&shared.lock);
        batch->next = NULL;
        if (shared.done == NULL)
            shared.done = batch;
        else
            shared.done_end->next = batch;
        shared.done_end = batch;
        shared.busy--;
        pthread_mutex_unlock(&shared.lock);
        uint64_t one = 1;
        if (write(shared.wake, &one, sizeof one) < 0)
            exit(1);
    }
    return NULL;
}

/* Take everything that the socket has. */
static void receive(void)
{
    struct timeval now = {0, 0};
    amqp_envelope_t envelope;
    for (;;) {
        amqp_rpc_reply_t reply = amqp_consume_message(consuming, &envelope, &now, 0);
        if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION && reply.library_error == AMQP_STATUS_TIMEOUT)
            return;
        check(reply, "consuming");
        last_tag = envelope.delivery_tag;
        waiting[(waiting_from + waiting_count++) % (PREFETCH * 8)] = envelope.message.body;
        envelope.message.body = amqp_empty_bytes;
        amqp_destroy_envelope(&envelope);
    }
}

/* Give what waits to writers that are idle. */
static void hand_over(void)
{
    while (waiting_count > 0) {
        pthread_mutex_lock(&shared.lock);
        bool idle = shared.busy < WRITERS;
        if (idle)
            shared.busy++;
        pthread_mutex_unlock(&shared.lock);
        if (!idle)
            return;
        struct batch *batch = calloc(1, sizeof *batch);
        while (batch->count < MOST && waiting_count > 0) {
            batch->bodies[batch->count++] = waiting[waiting_from];
            waiting_from = (waiting_from + 1) % (PREFETCH * 8);
            waiting_count--;
        }
        batch->last_tag = last_tag - waiting_count;
        if (oldest == NULL)
            oldest = batch;
        else
            newest->next_taken = batch;
        newest = batch;
        pthread_mutex_lock(&shared.lock);
        if (shared.work == NULL)
            shared.work = batch;
        else
            shared.work_end->next = batch;
        shared.work_end = batch;
        pthread_cond_signal(&shared.work_came);
        pthread_mutex_unlock(&shared.lock);
    }
}

static void publish(struct batch *batch)
{
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG,
        .content_type = amqp_cstring_bytes("application/cloudevents+json"),
        .delivery_mode = 2,
    };
    char routing_key[128];
    for (struct confirmation *at = batch->confirmations, *next; at != NULL; at = next) {
        next = at->next;
        snprintf(routing_key, sizeof routing_key, "%s.persisted.default", at->family);
        amqp_bytes_t body = {at->body.size, at->body.bytes};
        if (amqp_basic_publish(publishing, 1, amqp_cstring_bytes("agent.confirmations"),
                               amqp_cstring_bytes(routing_key), 0, 0, &properties, body) != AMQP_STATUS_OK) {
            fprintf(stderr, "RabbitMQ: publishing failed\n");
            exit(1);
        }
        publish_of[++published % OPEN_PUBLISHES] = batch;
        batch->unconfirmed++;
        free(at->body.bytes);
        free(at);
    }
}

static void collect(void)
{
    uint64_t count;
    if (read(shared.wake, &count, sizeof count) < 0)
        return;
    pthread_mutex_lock(&shared.lock);
    struct batch *done = shared.done;
    shared.done = NULL;
    pthread_mutex_unlock(&shared.lock);
    for (struct batch *next; done != NULL; done = next) {
        next = done->next;
        publish(done);
    }
}

static void confirm(uint64_t tag)
{
    struct batch *batch = publish_of[tag % OPEN_PUBLISHES];
    if (batch == NULL)
        return;
    publish_of[tag % OPEN_PUBLISHES] = NULL;
    batch->settled = --batch->unconfirmed == 0;
}

static void read_confirms(void)
{
    struct timeval now = {0, 0};
    amqp_frame_t frame;
    while (amqp_simple_wait_frame_noblock(publishing, &frame, &now) == AMQP_STATUS_OK) {
        if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) {
            fprintf(stderr, "RabbitMQ did not confirm a publish\n");
            exit(1);
        }
        amqp_basic_ack_t *ack = frame.payload.method.decoded;
        if (ack->multiple)
            while (confirmed_to < ack->delivery_tag)
                confirm(++confirmed_to);
        else
            confirm(ack->delivery_tag);
    }
    amqp_maybe_release_buffers(publishing);
}

/* Acknowledge the unbroken run of batches that are settled. */
static void acknowledge(void)
{
    uint64_t tag = 0;
    while (oldest != NULL && oldest->settled) {
        struct batch *next = oldest->next_taken;
        tag = oldest->last_tag;
        free(oldest);
        oldest = next;
    }
    if (tag > 0 && amqp_basic_ack(consuming, 1, tag, 1) != 0)
        exit(1);
}

int main(int count, char **arguments)
{
    one_a_message = getenv("ONE_A_MESSAGE") != NULL;
    shared.wake = eventfd(0, EFD_NONBLOCK);
    publishing = connect_amqp();
    amqp_confirm_select(publishing, 1);
    check(amqp_get_rpc_reply(publishing), "confirm.select");
    consuming = connect_amqp();
    amqp_basic_qos(consuming, 1, 0, PREFETCH, 0);
    check(amqp_get_rpc_reply(consuming), "basic.qos");
    for (int at = 0; at < WRITERS; at++) {
        pthread_t thread;
        pthread_create(&thread, NULL, writer, open_store("reference", MOST));
    }
    for (int at = 1; at < count; at++) {
        amqp_basic_consume(consuming, 1, amqp_cstring_bytes(arguments[at]), amqp_empty_bytes, 0, 0, 0,
                           amqp_empty_table);
        check(amqp_get_rpc_reply(consuming), "basic.consume");
    }
    struct pollfd ready[] = {
        {amqp_get_sockfd(consuming), POLLIN, 0},
        {amqp_get_sockfd(publishing), POLLIN, 0},
        {shared.wake, POLLIN, 0},
    };
    for (;;) {
        receive();
        collect();
        read_confirms();
        acknowledge();
        hand_over();
        poll(ready, 3, 1000);
    }
}
