// SPDX-License-Identifier: MIT
//
// pages: address space straight from the kernel, zeroed, touched on first use.
// For the pools that are reserved once at start and never grow.
#ifndef ALLOC_PAGES_H
#define ALLOC_PAGES_H

#include <stddef.h>

void *pages_reserve(size_t bytes);
void pages_release(void *pages, size_t bytes);

#endif
