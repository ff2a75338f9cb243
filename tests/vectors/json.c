// SPDX-License-Identifier: MIT
//
// json: the documents of JSONTestSuite (nst/JSONTestSuite) through our validator.
//
// usage: json FOLDER        FOLDER has test_parsing/ and, optionally, test_transform/
//
// y_ must be accepted and n_ refused; i_ is up to the parser, and the table below says what ours
// does and why; test_transform/ is valid JSON whose meaning parsers disagree about: accepted, but
// for what `choices` says. Each file is read whole, split at each byte and byte by byte, against an
// unreadable page: verdict and offset must agree. Exits 0 if all is as it should be, 1 if not, 77
// if the folder is not there.
#include "proto/json.h"
#include "tests/unit/edge.h"

#include <dirent.h>

enum {
    FILE_MAX = 1 << 20,
    SPLITS_MAX = 256 // a longer file is split at this many places, evenly spread
};

struct verdict {
    enum json_token last;
    uint64_t offset;
};

static const char lone[] = "the grammar allows half a surrogate pair; json_unescape refuses it";
static const char number[] = "the grammar has no limit; nobody computes with it here";
static const char utf8[] = "strings are checked for well-formed UTF-8";
static const char unicode[] =
    "JSON between systems is UTF-8, without byte order mark (RFC 8259 section 8.1)";

static const struct choice {
    const char *name;
    bool accepted;
    const char *why;
} choices[] = {
    {"i_number_double_huge_neg_exp.json", true, number},
    {"i_number_huge_exp.json", true, number},
    {"i_number_neg_int_huge_exp.json", true, number},
    {"i_number_pos_double_huge_exp.json", true, number},
    {"i_number_real_neg_overflow.json", true, number},
    {"i_number_real_pos_overflow.json", true, number},
    {"i_number_real_underflow.json", true, number},
    {"i_number_too_big_neg_int.json", true, number},
    {"i_number_too_big_pos_int.json", true, number},
    {"i_number_very_big_negative_int.json", true, number},
    {"i_object_key_lone_2nd_surrogate.json", true, lone},
    {"i_string_1st_surrogate_but_2nd_missing.json", true, lone},
    {"i_string_1st_valid_surrogate_2nd_invalid.json", true, lone},
    {"i_string_incomplete_surrogate_and_escape_valid.json", true, lone},
    {"i_string_incomplete_surrogate_pair.json", true, lone},
    {"i_string_incomplete_surrogates_escape_valid.json", true, lone},
    {"i_string_invalid_lonely_surrogate.json", true, lone},
    {"i_string_invalid_surrogate.json", true, lone},
    {"i_string_inverted_surrogates_U+1D11E.json", true, lone},
    {"i_string_lone_second_surrogate.json", true, lone},
    {"i_string_UTF-8_invalid_sequence.json", false, utf8},
    {"i_string_UTF8_surrogate_U+D800.json", false, utf8},
    {"i_string_invalid_utf-8.json", false, utf8},
    {"i_string_iso_latin_1.json", false, utf8},
    {"i_string_lone_utf8_continuation_byte.json", false, utf8},
    {"i_string_not_in_unicode_range.json", false, utf8},
    {"i_string_overlong_sequence_2_bytes.json", false, utf8},
    {"i_string_overlong_sequence_6_bytes.json", false, utf8},
    {"i_string_overlong_sequence_6_bytes_null.json", false, utf8},
    {"i_string_truncated-utf-8.json", false, utf8},
    {"i_string_UTF-16LE_with_BOM.json", false, unicode},
    {"i_string_utf16BE_no_BOM.json", false, unicode},
    {"i_string_utf16LE_no_BOM.json", false, unicode},
    {"i_structure_UTF-8_BOM_empty_object.json", false, unicode},
    {"i_structure_500_nested_arrays.json", false, "nesting is bounded by JSON_DEPTH_MAX"},
    // test_transform/
    {"string_1_invalid_codepoint.json", false, utf8},
    {"string_2_invalid_codepoints.json", false, utf8},
    {"string_3_invalid_codepoints.json", false, utf8},
};

enum { CHOICES = sizeof choices / sizeof choices[0] };

static struct {
    unsigned accepted, refused, failed;
    bool chosen[CHOICES];
} tally;

// ---- reading ----

static bool feed(struct json *json, const uint8_t *bytes, size_t len)
{
    const uint8_t *at = edge_put(bytes, len);
    size_t used = 0;
    enum json_token token;
    do
        token = json_next(json, at, len, &used, JSON_DEPTH_MAX);
    while (token > JSON_MORE && token < JSON_DONE);
    return token >= JSON_MORE;
}

static struct verdict judge(const uint8_t *bytes, size_t len, size_t first, size_t step)
{
    struct json json;
    json_start(&json);
    bool good = feed(&json, bytes, first);
    for (size_t done = first; good && done < len; done += step)
        good = feed(&json, bytes + done, len - done < step ? len - done : step);
    enum json_token last = json_end(&json);
    return (struct verdict){last, json.offset};
}

static bool agree(const char *name, struct verdict a, struct verdict b, const char *how,
                  size_t place)
{
    if (a.last == b.last && a.offset == b.offset)
        return true;
    printf("FAIL %s: whole %d at %llu, %s (%zu) %d at %llu\n", name, a.last,
           (unsigned long long)a.offset, how, place, b.last, (unsigned long long)b.offset);
    return false;
}

static bool splits_agree(const char *name, const uint8_t *bytes, size_t len, struct verdict whole)
{
    size_t stride = len / SPLITS_MAX + 1;
    for (size_t cut = 0; cut < len; cut += stride)
        if (!agree(name, whole, judge(bytes, len, cut, len), "split at", cut))
            return false;
    return agree(name, whole, judge(bytes, len, 0, 1), "byte by byte", 1);
}

// ---- judging ----

static const struct choice *choice_of(const char *name)
{
    for (size_t i = 0; i < CHOICES; i++) {
        if (strcmp(choices[i].name, name) == 0) {
            tally.chosen[i] = true;
            return &choices[i];
        }
    }
    return NULL;
}

// What should become of this file? False: nobody has said.
static bool expected(const char *name, bool *accepted)
{
    const struct choice *choice = choice_of(name);
    if (choice != NULL)
        *accepted = choice->accepted;
    else if (strncmp(name, "i_", 2) == 0)
        return false;
    else
        *accepted = strncmp(name, "n_", 2) != 0;
    return true;
}

static void check(const char *name, const uint8_t *bytes, size_t len)
{
    struct verdict whole = judge(bytes, len, len, 1);
    bool accepted = whole.last == JSON_DONE, should = false;
    bool good = splits_agree(name, bytes, len, whole);
    if (!expected(name, &should)) {
        printf("FAIL %s: not in the table; it was %s\n", name, accepted ? "accepted" : "refused");
        good = false;
    } else if (accepted != should) {
        printf("FAIL %s: %s at byte %llu\n", name, accepted ? "accepted" : "refused",
               (unsigned long long)whole.offset);
        good = false;
    }
    tally.accepted += accepted;
    tally.refused += !accepted;
    tally.failed += !good;
}

static void check_file(const char *folder, const char *name)
{
    static uint8_t bytes[FILE_MAX];
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    size_t len = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    if (!file || ferror(file) || len == sizeof bytes) {
        printf("FAIL %s: cannot be read\n", path);
        tally.failed++;
    } else {
        check(name, bytes, len);
    }
    if (file)
        fclose(file);
}

// Every *.json of a folder. False: there is no such folder.
static bool check_folder(const char *root, const char *folder)
{
    char path[2048];
    snprintf(path, sizeof path, "%s/%s", root, folder);
    DIR *dir = opendir(path);
    if (!dir)
        return false;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        size_t len = strlen(entry->d_name);
        if (len > 5 && strcmp(entry->d_name + len - 5, ".json") == 0)
            check_file(path, entry->d_name);
    }
    closedir(dir);
    return true;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    if (!check_folder(argv[1], "test_parsing")) {
        printf("SKIP: no JSONTestSuite at %s\n", argv[1]);
        return 77;
    }
    bool transform = check_folder(argv[1], "test_transform");
    for (size_t i = 0; i < CHOICES; i++)
        if (!tally.chosen[i] && choices[i].name[0] == 'i')
            printf("note: %s is in the table, but not in the folder\n", choices[i].name);
    printf("JSONTestSuite%s: %u accepted, %u refused, %u not as they should be\n",
           transform ? " with test_transform" : "", tally.accepted, tally.refused, tally.failed);
    return tally.failed ? 1 : 0;
}
