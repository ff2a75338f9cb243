// SPDX-License-Identifier: MIT
//
// conn: one socket, either side. It owns the descriptor, the receive, the send and the deadline;
// what the bytes mean is its owner's business, told through struct conn_ops. An owner embeds struct
// conn as its first member.
//
//   who may move where             by
//   FREE       -> CONNECTING       conn_open + conn_connect
//   FREE       -> OPEN             conn_open of an accepted descriptor
//   CONNECTING -> OPEN             the connect completed
//   OPEN       -> LINGERING        conn_finish: all output sent, FIN sent, reading what still comes
//   any        -> CLOSING          conn_close: cancel what is armed, wait for every completion
//   CLOSING    -> FREE             last completion, then close(2), then ops->closed
//
// Receive. At most one is armed. One-shot: conn_receive() again from ops->received when there is
// room; it is handed to the kernel at the end of the turn, behind the sends, which somebody waits
// for. Multishot: stays armed until conn_receive_stop(). No buffer is held while nothing arrives.
// When the ring has no buffer the connection waits in the core's starved list and is armed again
// by a returned buffer; its owner does not notice.
//
// Send. conn_push*() queue pieces; at the end of the turn all that waits leaves in one vectored
// send. At most one send is in flight. A piece holds a reference on its buffer until the kernel has
// taken its last byte.
//
// TLS. conn_tls_server() / conn_tls_client() put a session (proto/tls.h) between the socket and the
// owner, who notices nothing but its being slower: received bytes are decrypted into a second
// buffer, the one copy, and output is encrypted when it is sent, as much at a time as fits one
// buffer. On the client's side ops->connected comes a second time when the handshake is done.
//
// Deadline. Every connection has one at all times. Moving it is one store.
#ifndef ENGINE_CONN_H
#define ENGINE_CONN_H

#include "engine/core.h"

enum conn_state { CONN_FREE, CONN_CONNECTING, CONN_OPEN, CONN_LINGERING, CONN_CLOSING };

enum {
    SEGMENT_TEXT_MAX = 24,
    CONN_GATHER_BYTES = 4096, // output up to here leaves from one place
    CONN_LINGER_MS = 2000, // how long we read on after our FIN, so that no RST eats our last answer
    CONN_CLOSING_MS = 10000 // completions of a cancelled descriptor must be in by then (CHECK)
};

struct tls;
struct tls_context;
struct tls_saved;

struct segment {
    struct segment *next;
    const uint8_t *ptr;
    struct buf *buf; // NULL: static bytes, or text[] below
    uint32_t len;
    bool pins; // the first of a run of segments in one buffer
    uint8_t text[SEGMENT_TEXT_MAX];
};

struct conn_ops {
    // `len` bytes arrived in buf; the callee takes over the one reference.
    void (*received)(struct core *core, struct conn *conn, struct buf *buf, uint32_t len);
    // No more will be received: 0 end of stream, or -errno. Not called once closing.
    void (*ended)(struct core *core, struct conn *conn, int error);
    // The kernel took `bytes` more of the output. May be NULL.
    void (*sent)(struct core *core, struct conn *conn, uint32_t bytes);
    // Sending failed; the output queue is gone. Receiving may still work.
    void (*send_failed)(struct core *core, struct conn *conn, int error);
    void (*connected)(struct core *core, struct conn *conn, int error);
    // The deadline passed. Must close or set a new one.
    void (*expired)(struct core *core, struct conn *conn);
    // Everything is over; the slot is reused after this returns.
    void (*closed)(struct core *core, struct conn *conn);
};

struct conn {
    uint32_t magic;
    uint32_t generation;
    int fd;
    uint8_t state;      // enum conn_state
    uint8_t in_flight;  // operations the kernel has not finished
    uint8_t cancelling; // those of them that are cancellations
    bool cancel_missed; // one of these found nothing
    bool receive_armed, receive_multishot;
    bool receive_stopping; // its cancellation is under way
    bool receive_next;     // multishot or not, when it is armed again
    bool receive_wanted;   // when the armed one is over without bytes, arm it again
    bool send_armed, connecting;
    bool starved;      // found no buffer; waits in core->starved
    bool woken;        // left that line, and has not received since
    bool watching;     // a hang-up watch is armed
    bool closing_late; // a closing deadline has passed once
    bool hung_up;      // it told so while a receive was armed, which may yet be stopped
    bool ended;        // end of stream or error was seen
    bool finishing;    // conn_finish was called: close when the output is sent
    const struct conn_ops *ops;
    struct segment *out_first, *out_last;
    uint32_t out_bytes; // waiting or in flight
    uint32_t out_segments;
    uint32_t out_buffers; // buffers they hold, counting each run of one buffer once
    struct buf *out_last_buf;
    uint64_t deadline_ms;
    struct timer timer;
    struct list dirty;
    struct list line;               // core->receivers, or core->starved
    struct tls *tls;                // NULL: plaintext
    bool tls_opening;               // our handshake is under way: ops->connected follows
    bool tls_closing;               // close_notify was said
    bool tls_waiting;               // the session has something to say by itself
    uint32_t cipher_at, cipher_len; // of `gathered`: ciphertext still to be sent
    uint32_t plain_sent;            // plaintext inside it, told to ops->sent when it is gone
    struct buf *gathered; // small pieces copied together for the send in flight; NULL: none
    uint64_t moved_ms;    // when a byte last moved in either direction
};

// A slot for an open descriptor; takes it over. NULL when no slot is free (the caller closes fd).
// The first deadline is `deadline_ms` from now.
struct conn *conn_open(struct core *core, int fd, const struct conn_ops *ops, uint64_t deadline_ms);
void conn_connect(struct core *core, struct conn *conn, const struct sockaddr *addr, socklen_t len);

// Before any byte was received or pushed. False: no memory, or (client) a name that cannot be one.
bool conn_tls_server(struct core *core, struct conn *conn, struct tls_context *context);
bool conn_tls_client(struct core *core, struct conn *conn, struct tls_context *context,
                     const char *name, const struct tls_saved *saved);

void conn_receive(struct core *core, struct conn *conn, bool multishot); // no-op if armed
void conn_receive_stop(struct core *core, struct conn *conn);            // multishot only

// Learn that the peer hung up while nothing is received because unread input already waits: ends in
// ops->ended. The connection is of no further use then.
void conn_watch(struct core *core, struct conn *conn);

// Queue output. conn_push takes a reference of its own on buf (NULL: static bytes).
// False when the core has no segment left: the caller treats it as overload.
bool conn_push(struct core *core, struct conn *conn, struct buf *buf, const void *ptr, size_t len);
bool conn_push_text(struct core *core, struct conn *conn, const void *text, size_t len); // copied

void conn_deadline(struct core *core, struct conn *conn, uint64_t ms_from_now);

// Does output wait, or is some in flight?
static inline bool conn_has_output(const struct conn *conn)
{
    return conn->out_first || conn->cipher_len > 0 || conn->tls_waiting;
}

// Close in an orderly way once the output is sent; or at once.
void conn_finish(struct core *core, struct conn *conn);
// As conn_finish, but nothing may pass for a proper end: over TLS, no close_notify.
void conn_finish_torn(struct core *core, struct conn *conn);
void conn_close(struct core *core, struct conn *conn);

// Between conn.c and conn_tls.c.
void conn_output_advance(struct core *core, struct conn *conn, uint32_t bytes);
void conn_send_bytes(struct core *core, struct conn *conn, const void *bytes, size_t len);
void conn_dirty(struct core *core, struct conn *conn);
void conn_receive_ended(struct core *core, struct conn *conn, int error);
void conn_tls_received(struct core *core, struct conn *conn, struct buf *buf, uint32_t len,
                       bool wanted);
void conn_tls_send(struct core *core, struct conn *conn);
void conn_tls_sent(struct core *core, struct conn *conn, uint32_t bytes);
int conn_tls_ended(struct core *core, struct conn *conn, int error);
bool conn_tls_close(struct core *core, struct conn *conn);
void conn_tls_free(struct conn *conn);

// For the core.
void conn_event(struct core *core, const struct io_event *event);
void conn_flush_dirty(struct core *core);
void conn_start_receives(struct core *core);
void conn_wake_starved(struct core *core);

#endif
