/* A VMM in C that speaks the protocol from docs/reference/protocol.md alone, as lines of JSON.
 *
 *   vmm SOCKET NAME
 *
 * It has one guest, and does what it is told on its input, a word a line: "alloc" takes one more
 * PASID for the guest and binds it; "stop" frees them all, waits until they are back in the pool,
 * and leaves. It needs no library: a real program would use one for JSON.
 */
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define QUOTA 4
#define FIRST_SPID 101

static int wire;
static long next_id = 1, subscription = -1;
static long bound[QUOTA]; /* host's PASID by guest's, 0: none */
static int alive;         /* PASIDs that are not back in the pool */
static char buffer[1 << 16];
static size_t filled;     /* bytes of the server that nobody has looked at */

static void die(const char *what)
{
    fprintf(stderr, "vmm: %s\n", what);
    exit(1);
}

/* The number behind the first "NAME": in a line, or -1. */
static long number(const char *line, const char *name)
{
    char key[40];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *found = strstr(line, key);
    return found ? strtol(found + strlen(key), NULL, 10) : -1;
}

static bool is(const char *line, const char *name, const char *value)
{
    char pair[80];
    snprintf(pair, sizeof pair, "\"%s\":\"%s\"", name, value);
    return strstr(line, pair) != NULL;
}

/* One line of the server; what came behind it waits for the next call. */
static char *receive(void)
{
    static char line[sizeof buffer];
    for (;;) {
        char *end = memchr(buffer, '\n', filled);
        if (end) {
            size_t size = end - buffer;
            memcpy(line, buffer, size);
            line[size] = 0;
            filled -= size + 1;
            memmove(buffer, end + 1, filled);
            return line;
        }
        ssize_t got = read(wire, buffer + filled, sizeof buffer - filled);
        if (got <= 0)
            die("the connection ended");
        filled += got;
    }
}

static void send_line(const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    line[size++] = '\n';
    for (int sent = 0; sent < size;) {
        ssize_t done = write(wire, line + sent, size - sent);
        if (done < 0)
            die("the connection broke");
        sent += done;
    }
}

static void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

/* An event, or anything else that is no answer. It is acknowledged when it is dealt with: a PASID
 * stays in quarantine until then. */
static void deal_with(const char *line)
{
    if (is(line, "type", "Goodbye") || is(line, "type", "Withdraw"))
        die("the server ended, or this client lagged: a real one would go on");
    if (!is(line, "type", "Deliver"))
        return;
    const char *event = strstr(line, "\"message\":");
    long ioasid = number(event, "ioasid"), spid = number(event, "spid");
    if (is(event, "type", "Resync")) {
        die("this client lagged: a real one would take the Resync");
    } else if (is(event, "kind", "BIND")) {
        bound[spid - FIRST_SPID] = ioasid;
        say("maps the guest's %ld to %ld", spid, ioasid);
    } else if (is(event, "kind", "FREE") || is(event, "kind", "UNBIND")) {
        for (int each = 0; each < QUOTA; each++)
            if (bound[each] == ioasid) {
                bound[each] = 0;
                say("unmaps %d; done with %ld", FIRST_SPID + each, ioasid);
            }
    } else if (is(event, "kind", "RECLAIM")) {
        alive--;
        say("%ld is back in the pool", ioasid);
    }
    send_line("{\"type\":\"Ask\",\"request\":{\"type\":\"Acknowledge\",\"messages\":[[%ld,%ld]]}}",
              subscription, number(event, "seq"));
}

/* Ask, and return the line with the answer; events that come first are dealt with. */
static const char *ask(const char *format, ...)
{
    char request[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(request, sizeof request, format, arguments);
    va_end(arguments);
    long id = next_id++;
    send_line("{\"type\":\"Ask\",\"id\":%ld,\"request\":%s}", id, request);
    for (;;) {
        const char *line = receive();
        if (is(line, "type", "Answered") && number(line, "id") == id) {
            if (is(line, "type", "Refused"))
                die(line);
            return line;
        }
        deal_with(line);
    }
}

int main(int count, char **arguments)
{
    if (count != 3)
        die("usage: vmm SOCKET NAME");
    const char *name = arguments[2];
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    snprintf(where.sun_path, sizeof where.sun_path, "%s", arguments[1]);
    wire = socket(AF_UNIX, SOCK_STREAM, 0);
    if (wire < 0 || connect(wire, (struct sockaddr *)&where, sizeof where))
        die("nobody answers");

    send_line("{\"type\":\"Hello\",\"versions\":[1]}");
    if (!is(receive(), "type", "Welcome"))
        die("not welcome");
    ask("{\"type\":\"OpenSession\",\"name\":\"kvm:%s\"}", name);
    long sid = number(
        ask("{\"type\":\"AllocSet\",\"token\":\"%s\",\"quota\":%d}", name, QUOTA), "sid");
    subscription = number(
        ask("{\"type\":\"Subscribe\",\"token\":\"%s\",\"priority\":\"CPU\",\"hold\":true,"
            "\"kinds\":[\"BIND\",\"UNBIND\",\"FREE\",\"RECLAIM\"]}", name),
        "subscription");
    say("ready");

    /* The session may be told something at any time, and so may this program. */
    struct pollfd sources[] = {{.fd = wire, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    bool stopping = false;
    for (int given = 0; !stopping || alive;) {
        /* Lines that came together are not announced again. */
        bool waits = memchr(buffer, '\n', filled) != NULL;
        if (poll(sources, stopping ? 1 : 2, waits ? 0 : -1) < 0)
            die("poll");
        if (waits || sources[0].revents) {
            deal_with(receive());
            continue;
        }
        if (stopping || !sources[1].revents)
            continue;
        char word[16] = "";
        if (read(0, word, sizeof word - 1) > 0 && !strcmp(word, "alloc\n")) {
            long ioasid = number(ask("{\"type\":\"Alloc\",\"sid\":%ld}", sid), "ioasid");
            alive++;
            ask("{\"type\":\"AttachSpid\",\"ioasid\":%ld,\"spid\":%d}", ioasid,
                FIRST_SPID + given++);
        } else {
            ask("{\"type\":\"FreeSet\",\"sid\":%ld}", sid);
            stopping = true;
        }
    }
    /* Without this, leaving would be a crash. */
    ask("{\"type\":\"CloseSession\"}");
    return 0;
}
