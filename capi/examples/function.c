/* Makes a function from bytes, runs it, replaces its code, and releases it.
 *
 *   cc function.c $(pkg-config --cflags --libs hostmem) -o function && ./function
 */
#include <hostmem.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
/* lea eax, [rdi + 1]; ret, and with 2 */
static const unsigned char plus_one[] = {0x8d, 0x47, 0x01, 0xc3};
static const unsigned char plus_two[] = {0x8d, 0x47, 0x02, 0xc3};
#elif defined(__aarch64__)
/* add w0, w0, #1; ret, and with #2 */
static const unsigned char plus_one[] = {0x00, 0x04, 0x00, 0x11, 0xc0, 0x03, 0x5f, 0xd6};
static const unsigned char plus_two[] = {0x00, 0x08, 0x00, 0x11, 0xc0, 0x03, 0x5f, 0xd6};
#else
#error "this example has no code for this CPU"
#endif

/* Says what failed, and why. */
static int failed(const char *what, const hm_error *error) {
    fprintf(stderr, "%s: %s", what, error->message);
    if (error->setting != NULL) {
        fprintf(stderr, " (%s is %llu)", error->setting, (unsigned long long)error->value);
    }
    if (error->system_error != 0) {
        fprintf(stderr, ": %s", strerror(error->system_error));
    }
    fputc('\n', stderr);
    return 1;
}

int main(void) {
    hm_error error = HM_ERROR_INIT;
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.mapping = HM_MAPPING_AUTO; /* Two views; one that toggles where the host has no other. */
    hm_jit *jit;
    if (hm_jit_create(&config, &jit, &error) != HM_OK) {
        return failed("no executable memory", &error);
    }
    hm_span span;
    if (hm_jit_alloc(jit, sizeof plus_one, &span, &error) != HM_OK ||
        hm_jit_write(jit, &span, 0, plus_one, sizeof plus_one, &error) != HM_OK) {
        return failed("no function", &error);
    }
    int (*function)(int);
    memcpy(&function, &span.rx, sizeof function);
    int first = function(41);
    /* No thread executes it now: else a new span takes its place, and the old one is retired. */
    if (hm_jit_write(jit, &span, 0, plus_two, sizeof plus_two, &error) != HM_OK) {
        return failed("not rewritten", &error);
    }
    printf("%d, then %d\n", first, function(41));
    hm_live live;
    if (hm_jit_query(jit, (const char *)span.rx + 3, &live) == HM_OK) {
        printf("a pc inside is found in a span of %zu bytes\n", live.span.len);
    }
    hm_span copy = span;
    hm_jit_release(jit, &span, NULL);
    printf("a stale copy: %s\n", hm_status_string(hm_jit_release(jit, &copy, NULL)));
    hm_jit_close(jit, NULL);
    return 0;
}
