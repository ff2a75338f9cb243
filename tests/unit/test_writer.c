// SPDX-License-Identifier: MIT
#include <criterion/criterion.h>
#include <stdio.h>

#include "proto/writer.h"

static struct h1_head head;

// The fields that put_fields() keeps of this response, as text.
static const char *kept(const char *fields, uint64_t drop)
{
    static char raw[2048], out[2048];
    int len = snprintf(raw, sizeof raw, "HTTP/1.1 200 OK\r\n%s\r\n", fields);
    cr_assert_eq(h1_parse_response(&head, (const uint8_t *)raw, (size_t)len), H1_OK);
    struct writer w = {(uint8_t *)out, 0, sizeof out - 1};
    put_fields(&w, &head, drop);
    out[w.at] = '\0';
    return out;
}

Test(writer, numbers)
{
    // Decimal, no padding, up to the largest.
    uint8_t out[64];
    struct writer w = {out, 0, sizeof out};
    put_number(&w, 0);
    put_literal(&w, " ");
    put_number(&w, 10);
    put_literal(&w, " ");
    put_number(&w, UINT64_MAX);
    cr_assert_eq(w.at, strlen("0 10 18446744073709551615"));
    cr_assert_eq(memcmp(out, "0 10 18446744073709551615", w.at), 0);
}

Test(writer, fields_pass_as_they_came)
{
    // Bytes of a field are not touched: case, spaces, order.
    cr_assert_str_eq(kept("X-One:  1 \r\nx-TWO: 2\r\n", 0), "X-One:  1 \r\nx-TWO: 2\r\n");
}

Test(writer, fields_dropped_anywhere)
{
    // The first, one in the middle, and the last can go; what is left stands alone.
    uint64_t drop = field_bit(H1_FIELD_DATE);
    cr_assert_str_eq(kept("Date: x\r\nA: 1\r\nB: 2\r\n", drop), "A: 1\r\nB: 2\r\n");
    cr_assert_str_eq(kept("A: 1\r\nDate: x\r\nB: 2\r\n", drop), "A: 1\r\nB: 2\r\n");
    cr_assert_str_eq(kept("A: 1\r\nB: 2\r\nDate: x\r\n", drop), "A: 1\r\nB: 2\r\n");
    cr_assert_str_eq(kept("Date: x\r\nDate: y\r\n", drop), "");
    cr_assert_str_eq(kept("", drop), "");
}

Test(writer, hop_by_hop_fields_stay_here)
{
    // Connection, its kin, and whatever Connection names never pass; Content-Length is not ours to
    // drop.
    cr_assert_str_eq(kept("Connection: close, x-private\r\nX-Private: 1\r\nKeep-Alive: 5\r\n"
                          "Transfer-Encoding: chunked\r\nTE: trailers\r\nA: 1\r\n",
                          0),
                     "A: 1\r\n");
    cr_assert_str_eq(kept("Connection: keep-alive, x\r\nContent-Length: 3\r\nX: y\r\n", 0),
                     "Content-Length: 3\r\n");
}
