//! Limits of a connection, of an app, of a client address and of the whole server, and the answers over them.

mod address;
mod app;
mod connection;
mod overload;
