// SPDX-License-Identifier: MIT
//
// Proves that list.h keeps order, survives every removal, and that a detached node is harmless.
#include <criterion/criterion.h>

#include "alloc/list.h"

struct item {
    int value;
    struct list node;
};

static int value_of(struct list *node)
{
    return LIST_OWNER(node, struct item, node)->value;
}

// Both directions must tell the same story.
static void expect(struct list *head, const int *values, int count)
{
    int at = 0;
    for (struct list *node = head->next; node != head; node = node->next, at++) {
        cr_assert_lt(at, count);
        cr_assert_eq(value_of(node), values[at]);
    }
    cr_assert_eq(at, count);
    for (struct list *node = head->prev; node != head; node = node->prev)
        cr_assert_eq(value_of(node), values[--at]);
    cr_assert_eq(at, 0);
}

static void fill(struct list *head, struct item *items, int count)
{
    list_init(head);
    for (int i = 0; i < count; i++) {
        items[i].value = i;
        list_push_back(head, &items[i].node);
    }
}

Test(list, an_empty_list_gives_nothing)
{
    struct list head;
    list_init(&head);
    cr_assert(list_empty(&head));
    cr_assert_null(list_pop_front(&head));
}

Test(list, pushed_behind_comes_out_in_order)
{
    struct list head;
    struct item items[4];
    fill(&head, items, 4);
    expect(&head, (int[]){0, 1, 2, 3}, 4);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(value_of(list_pop_front(&head)), i);
    cr_assert(list_empty(&head));
}

Test(list, pushed_in_front_comes_out_first)
{
    struct list head;
    struct item items[3] = {{.value = 1}, {.value = 2}, {.value = 3}};
    list_init(&head);
    for (int i = 0; i < 3; i++)
        list_push_front(&head, &items[i].node);
    expect(&head, (int[]){3, 2, 1}, 3);
}

Test(list, front_back_and_middle_can_be_removed)
{
    for (int gone = 0; gone < 4; gone++) {
        struct list head;
        struct item items[4];
        int left[3], count = 0;
        fill(&head, items, 4);
        for (int i = 0; i < 4; i++)
            if (i != gone)
                left[count++] = i;
        list_remove(&items[gone].node);
        expect(&head, left, 3);
    }
}

Test(list, a_detached_node_may_be_removed_again)
{
    struct list head;
    struct item items[2];
    fill(&head, items, 2);
    list_remove(&items[0].node);
    cr_assert(list_empty(&items[0].node));
    list_remove(&items[0].node);
    expect(&head, (int[]){1}, 1);
    struct list *node = list_pop_front(&head);
    cr_assert(list_empty(node), "a popped node is detached");
    list_remove(node);
    cr_assert(list_empty(&head));
}

Test(list, a_node_moves_between_lists)
{
    struct list from, to;
    struct item items[3];
    fill(&from, items, 3);
    list_init(&to);
    list_remove(&items[1].node);
    list_push_back(&to, &items[1].node);
    expect(&from, (int[]){0, 2}, 2);
    expect(&to, (int[]){1}, 1);
}
