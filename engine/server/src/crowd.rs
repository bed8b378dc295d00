//! Who is connected to a face, in rooms of their own: those who arrive, people and programs, agents of nodes. Ten thousand
//! agents that wait for orders take no place from a person, and a crowd at the door takes none from either.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that have not asked for anything yet, at a time; further ones wait before they are taken.
const ARRIVING: usize = 512;
/// Connections of one node's agent at a time: one waits, and a few hand results over.
const EACH_NODE: usize = 8;

/// A room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// Whoever has not asked for anything yet.
    Arriving,
    /// People and programs.
    People,
    /// Agents whose node is proven.
    Agents,
}

impl Room {
    /// Every room.
    pub(crate) const ALL: [Self; 3] = [Self::Arriving, Self::People, Self::Agents];

    /// Returns the stable word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Arriving => "arriving",
            Self::People => "people",
            Self::Agents => "agents",
        }
    }
}

/// There is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// The room is full.
    #[error("{0} connections are open, and more are not taken now")]
    Room(usize),
    /// Whoever asks has as many as one may have.
    #[error("{0} connections of yours are open: close some")]
    Own(usize),
}

/// Who is connected.
#[derive(Debug)]
pub(crate) struct Crowd {
    people: usize,
    agents: usize,
    each_peer: usize,
    door: Arc<Semaphore>,
    inside: Mutex<BTreeMap<Room, Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    by_key: BTreeMap<String, usize>,
}

/// A connection's place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    at: Mutex<At>,
}

#[derive(Debug)]
struct At {
    room: Room,
    key: String,
    door: Option<OwnedSemaphorePermit>,
}

impl Crowd {
    /// Builds an empty one with room for so many people and programs, and so many agents; `each_peer` is for one user or
    /// address.
    pub(crate) fn new(people: usize, each_peer: usize, agents: usize) -> Arc<Self> {
        let door = Arc::new(Semaphore::new(ARRIVING));
        Arc::new(Self { people, agents, each_peer, door, inside: Mutex::default() })
    }

    fn inside(&self) -> MutexGuard<'_, BTreeMap<Room, Inside>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts who is in a room.
    pub(crate) fn count(&self, room: Room) -> usize {
        self.inside().get(&room).map_or(0, |i| i.all)
    }

    /// Waits until one more may arrive. None only where the engine stops.
    pub(crate) async fn door(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.door).acquire_owned().await.ok()
    }

    /// Lets somebody arrive.
    pub(crate) fn enter(self: &Arc<Self>, door: OwnedSemaphorePermit, peer: &str) -> Result<Place, Full> {
        self.take(Room::Arriving, peer)?;
        let at = At { room: Room::Arriving, key: peer.to_owned(), door: Some(door) };
        Ok(Place { crowd: Arc::clone(self), at: Mutex::new(at) })
    }

    fn take(&self, room: Room, key: &str) -> Result<(), Full> {
        let (most, each) = match room {
            Room::Arriving => (usize::MAX, self.each_peer),
            Room::People => (self.people, self.each_peer),
            Room::Agents => (self.agents, EACH_NODE),
        };
        let mut inside = self.inside();
        let inside = inside.entry(room).or_default();
        if inside.all >= most {
            return Err(Full::Room(most));
        }
        let own = inside.by_key.entry(key.to_owned()).or_insert(0);
        if *own >= each {
            return Err(Full::Own(each));
        }
        *own += 1;
        inside.all += 1;
        Ok(())
    }

    fn leave(&self, room: Room, key: &str) {
        let mut inside = self.inside();
        let Some(inside) = inside.get_mut(&room) else { return };
        if let Some(n) = inside.by_key.get_mut(key) {
            *n -= 1;
            inside.all -= 1;
            if *n == 0 {
                inside.by_key.remove(key);
            }
        }
    }
}

impl Place {
    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves to the room where a request belongs; a proxy may bring requests of several. Where there is no place the
    /// connection stays where it is.
    pub(crate) fn settle(&self, room: Room, key: &str) -> Result<(), Full> {
        let mut at = self.at();
        if at.room == room && at.key == key {
            return Ok(());
        }
        self.crowd.take(room, key)?;
        self.crowd.leave(at.room, &at.key);
        *at = At { room, key: key.to_owned(), door: None };
        Ok(())
    }

    /// Says whether nothing that was asked over this connection has given it a room yet.
    pub(crate) fn is_arriving(&self) -> bool {
        self.at().room == Room::Arriving
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let at = self.at.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.crowd.leave(at.room, &at.key);
        at.door = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn arrive(crowd: &Arc<Crowd>, peer: &str) -> Place {
        let door = crowd.door().await.unwrap();
        crowd.enter(door, peer).unwrap()
    }

    #[tokio::test]
    async fn each_room_is_bounded_and_no_one_fills_it_alone() {
        let crowd = Crowd::new(3, 2, 2);
        let mut people = Vec::new();
        for (peer, ends) in
            [("a", Ok(())), ("a", Ok(())), ("a", Err(Full::Own(2))), ("b", Ok(())), ("c", Err(Full::Room(3)))]
        {
            let place = arrive(&crowd, peer).await;
            assert_eq!(place.settle(Room::People, peer), ends, "{peer}");
            assert_eq!(place.is_arriving(), ends.is_err());
            if ends.is_ok() {
                people.push(place);
            }
        }
        // Agents find room all the same, and people find none more by that.
        let agents = [arrive(&crowd, "a").await, arrive(&crowd, "a").await];
        for (place, node) in agents.iter().zip(["gpu001", "gpu002"]) {
            assert_eq!(place.settle(Room::Agents, node), Ok(()));
        }
        let late = arrive(&crowd, "d").await;
        assert_eq!(late.settle(Room::Agents, "gpu003"), Err(Full::Room(2)));
        assert_eq!(late.settle(Room::People, "d"), Err(Full::Room(3)));
        assert_eq!(Room::ALL.map(|r| crowd.count(r)), [1, 3, 2]);
        drop((people, agents, late));
        assert_eq!(Room::ALL.map(|r| crowd.count(r)), [0, 0, 0]);
        assert!(crowd.inside().values().all(|i| i.by_key.is_empty()));
    }

    #[tokio::test]
    async fn a_connection_of_a_proxy_changes_rooms() {
        let crowd = Crowd::new(1, 1, 9);
        let place = arrive(&crowd, "proxy").await;
        for node in ["gpu001", "gpu002"] {
            assert_eq!(place.settle(Room::Agents, node), Ok(()));
            assert_eq!(Room::ALL.map(|r| crowd.count(r)), [0, 0, 1]);
        }
        assert_eq!(place.settle(Room::People, "proxy"), Ok(()));
        assert_eq!(Room::ALL.map(|r| crowd.count(r)), [0, 1, 0]);
        let mut agents = Vec::new();
        for _ in 0..EACH_NODE {
            agents.push(arrive(&crowd, "x").await);
            assert_eq!(agents.last().unwrap().settle(Room::Agents, "gpu001"), Ok(()));
        }
        assert_eq!(arrive(&crowd, "x").await.settle(Room::Agents, "gpu001"), Err(Full::Own(EACH_NODE)));
    }

    #[tokio::test]
    async fn whoever_arrives_while_the_door_is_full_waits() {
        let crowd = Crowd::new(10, ARRIVING, 10);
        let mut all = Vec::new();
        for _ in 0..ARRIVING {
            all.push(arrive(&crowd, "a").await);
        }
        let short = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(short, crowd.door()).await.is_err());
        // One who has found a room leaves the door free.
        all[0].settle(Room::People, "a").unwrap();
        assert!(tokio::time::timeout(short, crowd.door()).await.is_ok());
    }
}
