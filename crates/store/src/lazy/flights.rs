//! Things that are being fetched: who wants one that somebody fetches already waits for that.
//!
//! Whoever claims something first *leads* its flight and must bring it; all others *follow*. A flight that its leader gives up, for
//! whatever reason, is *abandoned*: a follower may then claim it for itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::StoreError;

/// How often who waits looks whether he should still.
const LOOK: Duration = Duration::from_millis(100);

/// How a flight ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome<V> {
    Landed(V),
    Failed(Arc<StoreError>),
    Abandoned,
}

/// One thing on its way.
#[derive(Debug)]
pub(super) struct Flight<V> {
    outcome: Mutex<Option<Outcome<V>>>,
    ended: Condvar,
}

impl<V: Clone> Flight<V> {
    /// Waits for the end, or until `stopped`.
    pub(super) fn wait(&self, stopped: &dyn Fn() -> bool) -> Outcome<V> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            if stopped() {
                return Outcome::Failed(Arc::new(StoreError::Stopped));
            }
            let woken = self.ended.wait_timeout(outcome, LOOK);
            (outcome, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Everything that is on its way.
#[derive(Debug)]
pub(super) struct Flights<K, V>(Mutex<HashMap<K, Arc<Flight<V>>>>);

/// What somebody is to a flight.
pub(super) enum Claim<'a, K: Eq + Hash, V> {
    Lead(Lead<'a, K, V>),
    Follow(Arc<Flight<V>>),
}

impl<K: Eq + Hash + Clone, V> Flights<K, V> {
    pub(super) fn new() -> Flights<K, V> {
        Flights(Mutex::new(HashMap::new()))
    }

    /// Joins the flight of `key`, or begins one. Who leads must look once more whether it has come meanwhile.
    pub(super) fn claim(&self, key: K) -> Claim<'_, K, V> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.entry(key) {
            Entry::Occupied(there) => Claim::Follow(Arc::clone(there.get())),
            Entry::Vacant(place) => {
                let key = place.key().clone();
                let flight = Arc::new(Flight {
                    outcome: Mutex::new(None),
                    ended: Condvar::new(),
                });
                place.insert(Arc::clone(&flight));
                Claim::Lead(Lead {
                    flights: self,
                    key,
                    flight,
                    outcome: Outcome::Abandoned,
                })
            }
        }
    }

    /// Begins a flight, unless there is one.
    pub(super) fn lead(&self, key: K) -> Option<Lead<'_, K, V>> {
        match self.claim(key) {
            Claim::Lead(lead) => Some(lead),
            Claim::Follow(_) => None,
        }
    }
}

/// The duty to bring something. Dropping it abandons the flight.
pub(super) struct Lead<'a, K: Eq + Hash, V> {
    flights: &'a Flights<K, V>,
    key: K,
    flight: Arc<Flight<V>>,
    outcome: Outcome<V>,
}

impl<K: Eq + Hash, V> Lead<'_, K, V> {
    pub(super) fn flight(&self) -> Arc<Flight<V>> {
        Arc::clone(&self.flight)
    }

    /// Gives it to all who wait. It must be where others look first by now.
    pub(super) fn land(mut self, value: V) {
        self.outcome = Outcome::Landed(value);
    }

    pub(super) fn fail(mut self, error: Arc<StoreError>) {
        self.outcome = Outcome::Failed(error);
    }
}

impl<K: Eq + Hash, V> Drop for Lead<'_, K, V> {
    fn drop(&mut self) {
        let mut all = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.key);
        drop(all);
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Abandoned);
        let mut place = self.flight.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some(outcome);
        self.flight.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> bool {
        false
    }

    fn follow(flights: &Flights<u8, u8>, key: u8) -> Arc<Flight<u8>> {
        match flights.claim(key) {
            Claim::Follow(flight) => flight,
            Claim::Lead(_) => panic!("there is no flight of {key}"),
        }
    }

    #[test]
    fn followers_get_what_the_leader_brings() {
        let flights = Flights::new();
        let lead = flights.lead(1).unwrap();
        assert!(flights.lead(1).is_none() && flights.lead(2).is_some());
        let (one, two) = (follow(&flights, 1), follow(&flights, 1));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| one.wait(&never));
            lead.land(7);
            assert!(matches!(waiter.join().unwrap(), Outcome::Landed(7)));
        });
        assert!(matches!(two.wait(&never), Outcome::Landed(7)));
    }

    #[test]
    fn an_end_without_an_outcome_lets_another_lead() {
        let flights: Flights<u8, u8> = Flights::new();
        let lead = flights.lead(1).unwrap();
        let follower = follow(&flights, 1);
        drop(lead);
        assert!(matches!(follower.wait(&never), Outcome::Abandoned));
        let lead = flights.lead(1).unwrap();
        let follower = follow(&flights, 1);
        lead.fail(Arc::new(StoreError::Stopped));
        assert!(matches!(follower.wait(&never), Outcome::Failed(_)));
        assert!(flights.lead(1).is_some());
    }

    #[test]
    fn a_follower_can_be_stopped() {
        let flights: Flights<u8, u8> = Flights::new();
        let _lead = flights.lead(1);
        assert!(matches!(follow(&flights, 1).wait(&|| true), Outcome::Failed(_)));
    }
}
