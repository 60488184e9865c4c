//! Processes: starting, arguments, names, ends.

use shmkit::{Event, Process};

fn raise(flag: Event, status: i32) -> i32 {
    flag.set();
    status
}

#[test]
fn a_child_gets_its_arguments_and_its_exit_code_comes_back() {
    let flag = Event::new().unwrap();
    let child = Process::new(raise).args((flag.clone(), 7)).start().unwrap();
    flag.wait().unwrap();
    let status = child.join().unwrap();
    assert_eq!(status.exit_code(), Some(7));
    assert_eq!(child.exit_code(), Some(7));
    assert!(!child.is_alive());
}
