//! Epoll.
