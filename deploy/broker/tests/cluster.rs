//! Brokers start, end with what holds them, and leave nothing behind.

use std::net::TcpStream;

use sanso_broker::{Cluster, available};

#[test]
fn a_killed_broker_is_gone_and_comes_back_at_the_same_address() {
    if !available("a_killed_broker_is_gone_and_comes_back_at_the_same_address") {
        return;
    }
    let mut cluster = Cluster::start(1).expect("start a broker");
    let address = cluster.servers();
    TcpStream::connect(&address).expect("it serves");
    cluster.kill(0);
    TcpStream::connect(&address).expect_err("it is gone");
    cluster.restart().expect("start it again");
    TcpStream::connect(&address).expect("it serves again");
    let folder = cluster.credentials().ca.clone();
    assert!(folder.exists());
    drop(cluster);
    TcpStream::connect(&address).expect_err("it ends with what holds it");
    assert!(!folder.exists(), "nothing is left behind");
}
