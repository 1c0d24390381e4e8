//! What each peer address has used up, so that one caller cannot take what all of them share. Pure: time comes in as a number.
//!
//! The table is bounded. When it is full of peers that still owe something, new ones share one entry: a flood of addresses slows down
//! newcomers and neither forgets who flooded nor touches those who were there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Peers remembered at once.
const MOST: usize = 1_024;

/// A token bucket, kept as the one time at which it will be full again (the generic cell rate algorithm).
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// Time to earn one.
    interval: Duration,
    /// What a full bucket is worth, less one.
    burst: Duration,
}

impl Rate {
    /// So many a minute, and as many at once; none for no limit.
    fn per_minute(count: u32) -> Option<Self> {
        let interval = Duration::from_secs(60).checked_div(count)?;
        Some(Self {
            interval,
            burst: interval * (count - 1),
        })
    }

    /// Takes one, or says how long until there is one.
    fn take(self, full_at: &mut Duration, now: Duration) -> Result<(), Duration> {
        let earliest = full_at.saturating_sub(self.burst);
        if earliest > now {
            return Err(earliest - now);
        }
        *full_at = (*full_at).max(now) + self.interval;
        Ok(())
    }

    fn give_back(self, full_at: &mut Duration) {
        *full_at = full_at.saturating_sub(self.interval);
    }
}

#[derive(Debug, Default)]
struct Entry {
    requests_full_at: Duration,
    failures_full_at: Duration,
    connections: usize,
}

impl Entry {
    fn owes_nothing(&self, now: Duration) -> bool {
        self.connections == 0 && self.requests_full_at <= now && self.failures_full_at <= now
    }
}

/// Names an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    One(IpAddr),
    /// Those the table has no room for.
    Others,
}

/// The limits and the table.
#[derive(Debug)]
pub(super) struct Peers {
    requests: Option<Rate>,
    failures: Option<Rate>,
    connections: usize,
    table: HashMap<Peer, Entry>,
}

impl Peers {
    pub(super) fn new(per_minute: u32, failures_per_minute: u32, connections: usize) -> Self {
        Self {
            requests: Rate::per_minute(per_minute),
            failures: Rate::per_minute(failures_per_minute),
            connections,
            table: HashMap::new(),
        }
    }

    /// A peer opened a connection; none when it has too many. Call `disconnect` with the answer.
    pub(super) fn connect(&mut self, address: IpAddr, now: Duration) -> Option<Peer> {
        let mut peer = Peer::One(network(address));
        if !self.table.contains_key(&peer) && self.table.len() >= MOST {
            self.table.retain(|_, entry| !entry.owes_nothing(now));
            if self.table.len() >= MOST {
                peer = Peer::Others;
            }
        }
        let most = self.connections;
        let entry = self.table.entry(peer).or_default();
        if entry.connections >= most {
            return None;
        }
        entry.connections += 1;
        Some(peer)
    }

    pub(super) fn disconnect(&mut self, peer: Peer) {
        if let Some(entry) = self.table.get_mut(&peer) {
            entry.connections = entry.connections.saturating_sub(1);
        }
    }

    /// A request begins; or how long until the next may.
    pub(super) fn request(&mut self, peer: Peer, now: Duration) -> Result<(), Duration> {
        let entry = self.table.entry(peer).or_default();
        match self.requests {
            Some(rate) => rate.take(&mut entry.requests_full_at, now),
            None => Ok(()),
        }
    }

    /// Credentials are about to be looked at: counted as failed before, so that many tries at once are not more than one after the
    /// other; or how long until the next may. Call `authenticated` when they were right.
    pub(super) fn attempt(&mut self, peer: Peer, now: Duration) -> Result<(), Duration> {
        let entry = self.table.entry(peer).or_default();
        match self.failures {
            Some(rate) => rate.take(&mut entry.failures_full_at, now),
            None => Ok(()),
        }
    }

    pub(super) fn authenticated(&mut self, peer: Peer) {
        if let (Some(rate), Some(entry)) = (self.failures, self.table.get_mut(&peer)) {
            rate.give_back(&mut entry.failures_full_at);
        }
    }
}

/// Whom an address belongs to: an IPv6 customer has a /64 at least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n))
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_peer_gets_its_rate_at_once_and_then_evenly() {
        let mut peers = Peers::new(6, 0, 9);
        let peer = peers.connect(address(1), at(100)).unwrap();
        for _ in 0..6 {
            assert_eq!(peers.request(peer, at(100)), Ok(()));
        }
        assert_eq!(peers.request(peer, at(100)), Err(at(10)));
        assert_eq!(peers.request(peer, at(107)), Err(at(3)));
        assert_eq!(peers.request(peer, at(110)), Ok(()));
        assert_eq!(peers.request(peer, at(110)), Err(at(10)));
        // Long silence earns a full bucket and no more.
        for _ in 0..6 {
            assert_eq!(peers.request(peer, at(9_000)), Ok(()));
        }
        assert_eq!(peers.request(peer, at(9_000)), Err(at(10)));
    }

    #[test]
    fn one_peers_excess_costs_no_other() {
        let mut peers = Peers::new(2, 1, 9);
        let one = peers.connect(address(1), at(0)).unwrap();
        let other = peers.connect(address(2), at(0)).unwrap();
        peers.attempt(one, at(0)).unwrap();
        assert!(peers.attempt(one, at(0)).is_err());
        while peers.request(one, at(0)).is_ok() {}
        assert_eq!(peers.request(other, at(0)), Ok(()));
        assert_eq!(peers.attempt(other, at(0)), Ok(()));
    }

    #[test]
    fn right_credentials_cost_nothing_and_failed_ones_come_back_in_time() {
        let mut peers = Peers::new(0, 2, 9);
        let peer = peers.connect(address(1), at(0)).unwrap();
        for _ in 0..100 {
            assert_eq!(peers.attempt(peer, at(0)), Ok(()));
            peers.authenticated(peer);
        }
        assert_eq!(peers.attempt(peer, at(0)), Ok(()));
        assert_eq!(peers.attempt(peer, at(0)), Ok(()));
        assert_eq!(peers.attempt(peer, at(0)), Err(at(30)));
        assert_eq!(peers.attempt(peer, at(30)), Ok(()));
    }

    #[test]
    fn zero_is_no_limit() {
        let mut peers = Peers::new(0, 0, 1);
        let peer = peers.connect(address(1), at(0)).unwrap();
        for _ in 0..10_000 {
            assert_eq!(peers.request(peer, at(0)), Ok(()));
            assert_eq!(peers.attempt(peer, at(0)), Ok(()));
        }
    }

    #[test]
    fn a_peer_has_so_many_connections_until_one_ends() {
        let mut peers = Peers::new(1, 1, 2);
        let peer = peers.connect(address(1), at(0)).unwrap();
        assert_eq!(peers.connect(address(1), at(0)), Some(peer));
        assert_eq!(peers.connect(address(1), at(0)), None);
        assert!(peers.connect(address(2), at(0)).is_some());
        peers.disconnect(peer);
        assert_eq!(peers.connect(address(1), at(0)), Some(peer));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_only_who_owes_nothing() {
        let mut peers = Peers::new(1, 1, 1);
        let first = peers.connect(address(0), at(0)).unwrap();
        peers.request(first, at(0)).unwrap();
        peers.disconnect(first);
        for n in 1..5_000 {
            if let Some(peer) = peers.connect(address(n), at(1)) {
                let _ = peers.request(peer, at(1));
                peers.disconnect(peer);
            }
        }
        assert!(peers.table.len() <= MOST + 1);
        // Who was there keeps its own entry, newcomers share one.
        assert_eq!(peers.connect(address(0), at(2)), Some(first));
        assert!(peers.request(first, at(2)).is_err());
        assert_eq!(peers.connect(address(9_000), at(2)), Some(Peer::Others));
        // A minute later nobody owes anything but the one with a connection, who is still known.
        let newcomer = peers.connect(address(9_001), at(100)).unwrap();
        assert_eq!(newcomer, Peer::One(address(9_001)));
        assert!(peers.table.contains_key(&first) && peers.table.len() <= 3);
    }

    #[test]
    fn an_ipv6_network_is_one_peer_and_a_mapped_address_is_its_own() {
        let mut peers = Peers::new(1, 1, 9);
        let connect = |peers: &mut Peers, text: &str| peers.connect(text.parse().unwrap(), at(0));
        assert_eq!(
            connect(&mut peers, "2001:db8:1:2::1"),
            connect(&mut peers, "2001:db8:1:2:ffff::9")
        );
        assert_ne!(
            connect(&mut peers, "2001:db8:1:2::1"),
            connect(&mut peers, "2001:db8:1:3::1")
        );
        assert_eq!(
            connect(&mut peers, "::ffff:192.0.2.1"),
            connect(&mut peers, "192.0.2.1")
        );
    }
}
