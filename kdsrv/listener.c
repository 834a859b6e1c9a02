/* Listening sockets. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <netdb.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "drivers/fault.h"
#include "kdsrv/client.h"
#include "kdsrv/log.h"

#define BACKLOG     64
#define CLIENTS_MAX 1000
#define PAUSE_MS    500 /* after running out of descriptors */

struct kds_listener {
	struct kds_server *server;
	struct evconnlistener *ev;
	struct event *pause;
	bool is_unix;
	bool has_password;
	struct kdw_verifier verifier;
	char path[KCS_MAX_VALUE];
	char name[KCS_MAX_TEXT];
};

const char *kds_listener_name(const struct kds_listener *l)
{
	return l->name;
}

/* The verifier of its password; NULL when it has none. */
static const struct kdw_verifier *verifier_of(const struct kds_listener *l)
{
	return l->has_password ? &l->verifier : NULL;
}

/* ---- who is it -------------------------------------------------------- */

static bool is_loopback(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET) {
		uint32_t a = ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr);

		return a >> 24 == 127;
	}
	if (sa->sa_family == AF_INET6) {
		const struct in6_addr *a =
		    &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;

		return IN6_IS_ADDR_LOOPBACK(a) ||
		       (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
	}
	return false;
}

static bool unix_peer(int fd, char *out, size_t cap)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	struct passwd *pw;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len)) {
		snprintf(out, cap, "unknown process");
		return false;
	}
	pw = getpwuid(cred.uid);
	if (pw)
		snprintf(out, cap, "pid %d of %.60s", (int)cred.pid, pw->pw_name);
	else
		snprintf(out, cap, "pid %d of uid %u", (int)cred.pid, (unsigned)cred.uid);
	return cred.uid == geteuid() || cred.uid == 0;
}

static void tcp_peer(const struct sockaddr *sa, socklen_t len, char *out, size_t cap)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (getnameinfo(sa, len, host, sizeof(host), port, sizeof(port),
	                NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(out, cap, "unknown address");
	else
		snprintf(out, cap, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

/* ---- accepting -------------------------------------------------------- */

static void accepted(struct evconnlistener *ev, evutil_socket_t fd, struct sockaddr *sa, int len,
                     void *arg)
{
	struct kds_listener *l = arg;
	char peer[120];
	bool trusted;

	(void)ev;
	if (l->is_unix) {
		trusted = unix_peer(fd, peer, sizeof(peer));
	} else {
		trusted = is_loopback(sa);
		tcp_peer(sa, (socklen_t)len, peer, sizeof(peer));
	}
	if (l->server->client_count >= CLIENTS_MAX) {
		static const char text[] = "KDSRV-ERROR too many clients\n";
		ssize_t n = write(fd, text, sizeof(text) - 1);

		(void)n;
		close(fd);
		kds_log(KDS_LOG_WARNING, "listen", "%s: refused, %d clients already", peer,
		        CLIENTS_MAX);
		return;
	}
	if (kds_client_new(l->server, fd, peer, !l->is_unix, trusted, verifier_of(l)))
		kds_log(KDS_LOG_ERROR, "listen", "%s: out of memory", peer);
}

static void pause_over(evutil_socket_t fd, short what, void *arg)
{
	struct kds_listener *l = arg;

	(void)fd;
	(void)what;
	evconnlistener_enable(l->ev);
}

/* Out of descriptors: the one kept in reserve serves to tell the client so;
 * those that are connected go on undisturbed. */
static void accept_failed(struct evconnlistener *ev, void *arg)
{
	static const char text[] = "KDSRV-ERROR the server is out of file descriptors\n";
	struct kds_listener *l = arg;
	struct kds_server *s = l->server;
	struct timeval tv = { .tv_usec = PAUSE_MS * 1000 };
	int err = EVUTIL_SOCKET_ERROR();

	kds_log(KDS_LOG_ERROR, "listen", "%s: cannot accept: %s", l->name, strerror(err));
	if ((err == EMFILE || err == ENFILE) && s->reserve_fd >= 0) {
		int fd;

		close(s->reserve_fd);
		fd = accept4(evconnlistener_get_fd(ev), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			ssize_t n = write(fd, text, sizeof(text) - 1);

			(void)n;
			close(fd);
		}
		s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	evconnlistener_disable(ev);
	evtimer_add(l->pause, &tv);
}

/* ---- opening ---------------------------------------------------------- */

static int listen_on(struct kds_listener *l, int fd)
{
	l->ev = KD_FAULTY_ALLOC("listener event",
	                        evconnlistener_new(l->server->base, accepted, l,
	                                           LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC,
	                                           BACKLOG, fd));
	if (!l->ev) {
		int err = errno;

		close(fd);
		errno = err;
		return KD_ERR_IO;
	}
	evconnlistener_set_error_cb(l->ev, accept_failed);
	return KD_OK;
}

/* 1: a server answers there. 0: nobody does. */
static bool unix_is_alive(const struct sockaddr_un *sun)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool alive;

	if (fd < 0)
		return true;
	alive = !connect(fd, (const struct sockaddr *)(const void *)sun, sizeof(*sun)) ||
	        errno != ECONNREFUSED;
	close(fd);
	return alive;
}

/* The directory of the socket, for us alone. */
static int make_directory(const char *path, char *error, size_t cap)
{
	char dir[KCS_MAX_VALUE];
	char *slash;
	struct stat st;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return KD_OK;
	*slash = '\0';
	if (KD_FAULTY("mkdir", EACCES, mkdir(dir, 0700)) && errno != EEXIST) {
		snprintf(error, cap, "%s: cannot create: %s", dir, strerror(errno));
		return KD_ERR_IO;
	}
	if (stat(dir, &st) || !S_ISDIR(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0)) {
		snprintf(error, cap, "%s: not a directory of ours", dir);
		return KD_ERR_DENIED;
	}
	if (st.st_mode & (S_IWGRP | S_IWOTH)) {
		snprintf(error, cap, "%s: others can write there; chmod 700 it", dir);
		return KD_ERR_DENIED;
	}
	return KD_OK;
}

/* For a name that exists. Only what a killed server left is taken away. */
static int make_room(const struct sockaddr_un *sun, char *error, size_t cap)
{
	struct stat st;

	if (!lstat(sun->sun_path, &st) && !S_ISSOCK(st.st_mode)) {
		snprintf(error, cap, "%s: exists and is no socket; take another name",
		         sun->sun_path);
		return KD_ERR_INVALID;
	}
	if (unix_is_alive(sun)) {
		snprintf(error, cap, "%s: in use: another kdsrv listens there", sun->sun_path);
		return KD_ERR_BUSY;
	}
	kds_log(KDS_LOG_WARNING, "listen", "%s: left by a server that was killed; taken over",
	        sun->sun_path);
	unlink(sun->sun_path);
	return KD_OK;
}

static int open_unix(struct kds_listener *l, const struct kcs_server *where, char *error,
                     size_t cap)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int err = make_directory(where->path, error, cap);
	int fd;

	if (err)
		return err;
	if (strlen(where->path) >= sizeof(sun.sun_path)) {
		snprintf(error, cap, "%s: too long for the name of a socket", where->path);
		return KD_ERR_INVALID;
	}
	memcpy(sun.sun_path, where->path, strlen(where->path));
	fd = KD_FAULTY("listener socket", EMFILE,
	               socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (fd < 0)
		goto err_errno;
	if (KD_FAULTY("bind", ENOMEM, bind(fd, (struct sockaddr *)(void *)&sun, sizeof(sun)))) {
		if (errno != EADDRINUSE)
			goto err_close;
		err = make_room(&sun, error, cap);
		if (err) {
			close(fd);
			return err;
		}
		if (bind(fd, (struct sockaddr *)(void *)&sun, sizeof(sun)))
			goto err_close;
	}
	snprintf(l->path, sizeof(l->path), "%s", where->path);
	if (KD_FAULTY("chmod", EPERM, chmod(where->path, 0600)))
		goto err_close;
	if (listen_on(l, fd))
		goto err_errno;
	l->is_unix = true;
	snprintf(l->name, sizeof(l->name), "npipe:pipe=%s", strrchr(where->path, '/') + 1);
	return KD_OK;

err_close:
	close(fd);
err_errno:
	snprintf(error, cap, "%s: %s", where->path, strerror(errno));
	return KD_ERR_IO;
}

/* A bound socket, or -1 with errno. */
static int bind_tcp(const struct addrinfo *ai)
{
	int on = 1;
	int fd = KD_FAULTY("listener socket", EMFILE,
	                   socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	/* Another listener on a bound port shows at listen, not at bind. */
	if (KD_FAULTY("bind", EACCES, bind(fd, ai->ai_addr, ai->ai_addrlen)) ||
	    KD_FAULTY("listen", ENOMEM, listen(fd, BACKLOG))) {
		int err = errno;

		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

/* What bind_tcp() or listen_on() left in errno, with what to do. */
static int bind_failed(const char *host, unsigned port, char *error, size_t cap)
{
	switch (errno) {
	case EADDRINUSE:
		return KD_ERR_BUSY; /* its text depends on the range */
	case EACCES:
		snprintf(error, cap, "tcp:port=%u: low ports are for root; take one from 1024 on",
		         port);
		return KD_ERR_DENIED;
	case EADDRNOTAVAIL:
		snprintf(error, cap, "tcp:bind=%s: no address of this machine; ip addr lists them",
		         host);
		return KD_ERR_INVALID;
	default:
		snprintf(error, cap, "tcp:port=%u,bind=%s: %s", port, host, strerror(errno));
		return KD_ERR_IO;
	}
}

static int try_port(struct kds_listener *l, const char *host, unsigned port, bool ipv6, char *error,
                    size_t cap)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		                  .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
		                  .ai_family = ipv6 ? AF_INET6 : AF_UNSPEC };
	struct addrinfo *ai;
	char service[16];
	int fd, rc;

	snprintf(service, sizeof(service), "%u", port);
	rc = kd_fault("getaddrinfo") ? EAI_MEMORY : getaddrinfo(host, service, &hints, &ai);
	if (rc) {
		snprintf(error, cap, "tcp:bind=%s: %s", host, gai_strerror(rc));
		return KD_ERR_INVALID;
	}
	fd = bind_tcp(ai);
	freeaddrinfo(ai);
	if (fd < 0 || listen_on(l, fd))
		return bind_failed(host, port, error, cap);
	snprintf(l->name, sizeof(l->name), "tcp:port=%u,bind=%s", port, host);
	return KD_OK;
}

static int open_tcp(struct kds_listener *l, const struct kcs_server *where, char *error, size_t cap)
{
	const char *host = where->host[0] ? where->host : where->ipv6 ? "::1" : "127.0.0.1";
	int err = KD_ERR_BUSY;

	for (unsigned port = where->port_lo; port <= where->port_hi && err == KD_ERR_BUSY; port++)
		err = try_port(l, host, port, where->ipv6, error, cap);
	if (err == KD_ERR_BUSY && where->port_lo == where->port_hi)
		snprintf(error, cap, "tcp: port %u on %s is in use; ss -ltnp tells by whom",
		         where->port_lo, host);
	else if (err == KD_ERR_BUSY)
		snprintf(error, cap,
		         "tcp: ports %u to %u on %s are all in use; ss -ltnp tells by whom",
		         where->port_lo, where->port_hi, host);
	return err;
}

int kds_listener_open(struct kds_listener **out, struct kds_server *s,
                      const struct kcs_server *where, char *error, size_t cap)
{
	struct kds_listener *l = KD_FAULTY_ALLOC("listener", calloc(1, sizeof(*l)));
	int err;

	if (!l) {
		snprintf(error, cap, "out of memory");
		return KD_ERR_NOMEM;
	}
	l->server = s;
	l->pause = KD_FAULTY_ALLOC("pause timer", event_new(s->base, -1, 0, pause_over, l));
	l->has_password = where->password[0];
	if (!l->pause) {
		kds_listener_close(l);
		snprintf(error, cap, "out of memory");
		return KD_ERR_NOMEM;
	}
	if (l->has_password && kdw_verifier_make(&l->verifier, where->password)) {
		kds_listener_close(l);
		snprintf(error, cap, "cannot prepare the password check");
		return KD_ERR_IO;
	}
	err = where->kind == KCS_NPIPE ? open_unix(l, where, error, cap)
	                               : open_tcp(l, where, error, cap);
	if (err) {
		kds_listener_close(l);
		return err;
	}
	*out = l;
	return KD_OK;
}

void kds_listener_close(struct kds_listener *l)
{
	if (!l)
		return;
	if (l->ev)
		evconnlistener_free(l->ev);
	if (l->path[0])
		unlink(l->path);
	if (l->pause)
		event_free(l->pause);
	explicit_bzero(&l->verifier, sizeof(l->verifier));
	free(l);
}
