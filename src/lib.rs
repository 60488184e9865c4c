//! shmkit
