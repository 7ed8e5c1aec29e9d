//! Labs that the tests of one process share, one per configuration.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use super::{Lab, LabConfig};

#[derive(Default)]
struct Place {
    lab: Mutex<Option<Lab>>,
    /// Tests that use it or wait for it.
    users: AtomicUsize,
}

fn places() -> &'static Mutex<HashMap<LabConfig, &'static Place>> {
    static PLACES: OnceLock<Mutex<HashMap<LabConfig, &'static Place>>> = OnceLock::new();
    PLACES.get_or_init(Mutex::default)
}

/// The shared lab of this configuration: booted for the first test that asks, and booted
/// anew after a test that left it broken. Waits while another test has it.
pub fn shared(config: LabConfig) -> SharedLab {
    // There is one, whatever is asked for.
    let config = if cfg!(native_host) {
        LabConfig::default()
    } else {
        config
    };
    let place: &'static Place = {
        let mut places = places().lock().unwrap_or_else(PoisonError::into_inner);
        places
            .entry(config.clone())
            .or_insert_with(|| Box::leak(Box::default()))
    };
    place.users.fetch_add(1, Ordering::SeqCst);
    let user = User(&place.users);
    let mut guard = place.lab.lock().unwrap_or_else(PoisonError::into_inner);
    if guard.as_ref().is_none_or(|lab| lab.broken) {
        // The old one ends before the new one asks for its slot.
        *guard = None;
        *guard = Some(Lab::boot(config));
    }
    SharedLab {
        lab: guard,
        _user: user,
    }
}

/// Ends the shared labs that no test uses or waits for, to make room for another one.
pub(super) fn end_idle() {
    let places = places().lock().unwrap_or_else(PoisonError::into_inner);
    for place in places.values() {
        if place.users.load(Ordering::SeqCst) != 0 {
            continue;
        }
        match place.lab.try_lock() {
            Ok(mut lab) => *lab = None,
            Err(TryLockError::Poisoned(lab)) => *lab.into_inner() = None,
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

/// Exclusive use of a shared lab until it is dropped.
pub struct SharedLab {
    lab: MutexGuard<'static, Option<Lab>>,
    _user: User,
}

/// Counts itself out when it goes.
struct User(&'static AtomicUsize);

impl Drop for User {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Deref for SharedLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab
            .as_ref()
            .expect("shared() boots the lab before it hands it out")
    }
}

impl DerefMut for SharedLab {
    fn deref_mut(&mut self) -> &mut Lab {
        self.lab
            .as_mut()
            .expect("shared() boots the lab before it hands it out")
    }
}
