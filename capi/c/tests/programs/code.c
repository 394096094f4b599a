/* Code ranges. */
#define _GNU_SOURCE
#include "check.h"
#include <setjmp.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t page;

static hm_code *make(size_t len, hm_mapping mapping, size_t guard) {
    hm_code_config config = HM_CODE_CONFIG_INIT;
    config.len = len;
    config.mapping = mapping;
    config.guard = guard;
    hm_code *code = NULL;
    OK(hm_code_create(&config, &code, NULL));
    return code;
}

static hm_code_info info_of(hm_code *code) {
    hm_code_info info = HM_CODE_INFO_INIT;
    OK(hm_code_get_info(code, &info, NULL));
    return info;
}

static void write_answer(hm_code *code, size_t offset, uint32_t number) {
    unsigned char bytes[ANSWER_MOST];
    size_t len = answer(bytes, number);
    OK(hm_code_write(code, offset, bytes, len, HM_BARRIER_NOW, NULL));
    CHECK(run((char *)info_of(code).rx + offset) == number);
}

static jmp_buf out;

static void leave(hm_code *code, size_t offset, uint32_t number) {
    void *rw;
    OK(hm_code_begin_write(code, offset, ANSWER_MOST, &rw, NULL));
    answer(rw, number);
    longjmp(out, 1);
}

static void every_mapping(hm_mapping mapping) {
    hm_code *code = make(20 * page - 1, mapping, page);
    hm_code_info info = info_of(code);
    CHECK(info.len == 20 * page && info.mapping == mapping && info.page_size == page);
    CHECK((info.rx == info.rw) == (mapping != HM_MAPPING_DUAL));
    /* From the top down. */
    for (uint32_t n = 1; n < 500; n++) {
        write_answer(code, info.len - n * 16, n);
    }
    size_t offset = 9;
    OK(hm_code_offset(code, (char *)info.rx + 77, &offset));
    CHECK(offset == 77);
    OK(hm_code_offset(code, (char *)info.rw + info.len - 1, &offset));
    CHECK(offset == info.len - 1);
    STATUS(HM_UNKNOWN_POINTER, hm_code_offset(code, (char *)info.rx + info.len, &offset));
    STATUS(HM_UNKNOWN_POINTER, hm_code_offset(code, NULL, &offset));

    unsigned char byte = 0;
    STATUS(HM_OUT_OF_RANGE, hm_code_write(code, info.len, &byte, 1, HM_BARRIER_NOW, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_code_write(code, SIZE_MAX, &byte, 1, HM_BARRIER_NOW, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_code_write(code, 0, &byte, 1, 9, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_code_write(code, 0, NULL, 1, HM_BARRIER_NOW, NULL));
    void *rw;
    STATUS(HM_OUT_OF_RANGE, hm_code_begin_write(code, 0, info.len + 1, &rw, NULL));
    STATUS(HM_OUT_OF_RANGE, hm_code_end_write(code, 1, info.len, NULL));
    STATUS(HM_OUT_OF_RANGE, hm_code_publish(code, info.len, 1, HM_BARRIER_NOW, NULL));

    /* A writer that leaves. */
    if (setjmp(out) == 0) {
        leave(code, 0, 1000);
    }
    write_answer(code, 3 * page, 1001);
    OK(hm_code_publish(code, 0, ANSWER_MOST, HM_BARRIER_DEFERRED, NULL));
    OK(hm_code_sync(code, NULL));
    CHECK(run(info.rx) == 1000);

    OK(hm_code_purge(code, 2 * page, 4 * page, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_code_purge(code, 1, page, NULL));
    write_answer(code, 3 * page + 64, 1002);
    CHECK(run(info.rx) == 1000);
    OK(hm_code_recycle(code, NULL));
    write_answer(code, 0, 1003);

    STATUS(HM_INVALID_ARGUMENT, hm_code_shrink(code, 0, page + 1, NULL));
    OK(hm_code_shrink(code, 3 * page, 2 * page, NULL));
    hm_code_info left = info_of(code);
    CHECK(left.len == 2 * page && left.rx == (char *)info.rx + 3 * page);
    CHECK(run((char *)left.rx + 64) == 1002);
    write_answer(code, 2 * page - 16, 1004);
    OK(hm_code_close(code, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_code_close(code, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_code_sync(code, NULL));
}

static void settings(void) {
    hm_code *code = NULL;
    hm_code_config config = HM_CODE_CONFIG_INIT;
    hm_error error = HM_ERROR_INIT;
    STATUS(HM_INVALID_ARGUMENT, hm_code_create(&config, &code, &error));
    CHECK(error.setting != NULL && strcmp(error.setting, "len") == 0 && error.value == 0);
    config.len = ((size_t)2 << 30) + 1;
    STATUS(HM_INVALID_ARGUMENT, hm_code_create(&config, &code, &error));
    CHECK(strcmp(error.setting, "len") == 0 && error.value == config.len);
    config.len = 64 << 20;
    config.fork = 9;
    STATUS(HM_INVALID_ARGUMENT, hm_code_create(&config, &code, NULL));
    config.fork = HM_FORK_SHARE;
    config.pages = 5000;
    STATUS(HM_INVALID_ARGUMENT, hm_code_create(&config, &code, NULL));
    config.pages = HM_PAGES_TRANSPARENT;
    config.name = "a code buffer";
    config.rx.last = 0xffffffff;
    OK(hm_code_create(&config, &code, NULL));
    CHECK((size_t)info_of(code).rx + info_of(code).len <= (size_t)1 << 32);
    write_answer(code, 32 << 20, 7);
    OK(hm_code_close(code, NULL));

    /* In a region, with its guards. */
    hm_request request = HM_REQUEST_INIT;
    request.len = 64 << 20;
    hm_range range;
    OK(hm_pages_reserve(NULL, &request, &range, NULL));
    hm_region *region = NULL;
    OK(hm_region_create(NULL, &region, NULL));
    OK(hm_region_adopt(region, range, NULL));
    hm_source inside = HM_SOURCE_INIT;
    inside.region = region;
    memset(&config, 0, sizeof config);
    config.size = sizeof config;
    config.len = 4 * page;
    config.guard = page;
    config.source = &inside;
    OK(hm_code_create(&config, &code, NULL));
    size_t start = (size_t)range.start, rx = (size_t)info_of(code).rx;
    CHECK(rx >= start && rx < start + range.len);
    write_answer(code, page, 8);
    STATUS(HM_BUSY, hm_region_close(region, NULL));
    OK(hm_code_shrink(code, page, page, NULL));
    CHECK(run(info_of(code).rx) == 8);
    OK(hm_code_close(code, NULL));
    OK(hm_region_release_unused(region, 1, NULL, NULL));
    OK(hm_region_close(region, NULL));
}

static void forks(void) {
    hm_code *code = make(page, HM_MAPPING_DUAL, 0);
    write_answer(code, 0, 1);
    pid_t child = fork();
    if (child == 0) {
        OK(hm_fork_child_all(NULL));
        unsigned char byte = 0;
        CHECK(run(info_of(code).rx) == 1);
        CHECK(hm_code_write(code, 0, &byte, 1, HM_BARRIER_NOW, NULL) != HM_OK);
        OK(hm_code_close(code, NULL));
        code = make(page, HM_MAPPING_DUAL, 0);
        write_answer(code, 0, 2);
        _exit(0);
    }
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(run(info_of(code).rx) == 1);
    OK(hm_code_close(code, NULL));
}

int main(void) {
    page = (size_t)sysconf(_SC_PAGESIZE);
    every_mapping(HM_MAPPING_DUAL);
    every_mapping(HM_MAPPING_TOGGLE);
    every_mapping(HM_MAPPING_READ_WRITE_EXEC);
    settings();
    if (!EMULATED) {
        forks();
    }
    puts("all hold");
    return 0;
}
