// The modules of tests/simulator, for the root of each target that runs it: `include!("../simulator.rs")`.

#[path = "../simulator/backend/mod.rs"]
mod backend;
#[path = "../simulator/backends.rs"]
mod backends;
#[path = "../simulator/change.rs"]
mod change;
#[path = "../simulator/cipher.rs"]
mod cipher;
#[path = "../simulator/client.rs"]
mod client;
#[path = "../simulator/http.rs"]
mod http;
#[path = "../simulator/kernel/mod.rs"]
mod kernel;
#[path = "../simulator/process.rs"]
mod process;
#[path = "../simulator/random.rs"]
mod random;
#[path = "../simulator/redis/mod.rs"]
mod redis;
#[path = "../simulator/redis_connection.rs"]
mod redis_connection;
#[path = "../simulator/simulation/mod.rs"]
mod simulation;
#[path = "../simulator/transfer.rs"]
mod transfer;
