// Package epoll is what an event loop needs of Linux: calls that never wait, and
// epoll sets that Go's own poller watches. On other systems it is empty.
package epoll
