// SPDX-License-Identifier: MIT
#include "proto/writer.h"

void put_number(struct writer *w, uint64_t number)
{
    uint8_t digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number);
    put_bytes(w, digits + at, sizeof digits - at);
}

// Does a Connection field name anything but the two words that nearly every message uses?
static bool connection_names_fields(const struct h1_head *head)
{
    for (unsigned i = 0; i < head->field_count; i++) {
        if (head->field[i].id != H1_FIELD_CONNECTION)
            continue;
        if (!span_equal_nocase(head->field[i].value, SPAN("keep-alive")) &&
            !span_equal_nocase(head->field[i].value, SPAN("close")))
            return true;
    }
    return false;
}

static void put_line_run(struct writer *w, const uint8_t *from, const uint8_t *to)
{
    if (from < to)
        put_bytes(w, from, (size_t)(to - from));
}

void put_fields(struct writer *w, const struct h1_head *head, uint64_t drop)
{
    drop |= FIELDS_HOP_BY_HOP;
    bool named = connection_names_fields(head);
    if (head->field_count == 0)
        return;
    // Lines that stay are neighbours more often than not: copied run by run.
    const uint8_t *run = head->field[0].name.ptr;
    for (unsigned i = 0; i < head->field_count; i++) {
        const struct h1_field *field = &head->field[i];
        // Content-Length counts as framing of the hop; whether it goes is the caller's word.
        bool hop = named && field->id != H1_FIELD_CONTENT_LENGTH && h1_hop_by_hop(head, field);
        if (!hop && !(drop & field_bit(field->id)))
            continue;
        put_line_run(w, run, field->name.ptr);
        const uint8_t *line_end = field->value.ptr + field->value.len;
        if (i + 1 < head->field_count)
            line_end = head->field[i + 1].name.ptr;
        run = line_end;
        if (i + 1 == head->field_count)
            return;
    }
    const struct h1_field *last = &head->field[head->field_count - 1];
    const uint8_t *end = last->value.ptr + last->value.len;
    put_line_run(w, run, end);
    if (run < end)
        put_literal(w, "\r\n");
}
