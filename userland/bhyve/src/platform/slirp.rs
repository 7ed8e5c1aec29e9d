//! libslirp, a TCP/IP stack that ends a guest's connections and makes them again with the
//! host's sockets. The library is opened when a guest wants it (libslirp.h of 4.3 to 4.9,
//! SlirpConfig version 4), so that bhyve runs where it isn't installed.
//!
//! It keeps variables of its own for the whole process, so that no two threads may be in
//! it, whichever instance they call: [`LOCK`] is held in all calls and never while waiting.

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// What the run-time linker looks for.
const NAME: &str = "libslirp.so.0";
/// Where FreeBSD's port puts it.
const OF_A_PORT: &str = "/usr/local/lib/libslirp.so.0";

/// SLIRP_CONFIG_VERSION_MAX of libslirp 4.3.
const CONFIG_VERSION: u32 = 4;

/// The largest and the smallest if_mtu there can be.
pub const MAX_MTU: u32 = 65521;
pub const MIN_MTU: u32 = 68;

const POLL_IN: c_int = 1;
const POLL_OUT: c_int = 2;
const POLL_PRI: c_int = 4;
const POLL_ERR: c_int = 8;
const POLL_HUP: c_int = 16;

const EVENTS: [(c_int, i16); 5] = [
    (POLL_IN, libc::POLLIN),
    (POLL_OUT, libc::POLLOUT),
    (POLL_PRI, libc::POLLPRI),
    (POLL_ERR, libc::POLLERR),
    (POLL_HUP, libc::POLLHUP),
];

/// `Slirp`, of which only the library knows more.
#[repr(C)]
struct Instance {
    _opaque: [u8; 0],
}

/// `struct SlirpConfig`.
#[repr(C)]
struct Config {
    version: u32,
    restricted: c_int,
    in_enabled: bool,
    vnetwork: libc::in_addr,
    vnetmask: libc::in_addr,
    vhost: libc::in_addr,
    in6_enabled: bool,
    vprefix_addr6: libc::in6_addr,
    vprefix_len: u8,
    vhost6: libc::in6_addr,
    vhostname: *const c_char,
    tftp_server_name: *const c_char,
    tftp_path: *const c_char,
    bootfile: *const c_char,
    vdhcp_start: libc::in_addr,
    vnameserver: libc::in_addr,
    vnameserver6: libc::in6_addr,
    vdnssearch: *const *const c_char,
    vdomainname: *const c_char,
    if_mtu: usize,
    if_mru: usize,
    disable_host_loopback: bool,
    enable_emu: bool,
    outbound_addr: *const c_void,
    outbound_addr6: *const c_void,
    disable_dns: bool,
    disable_dhcp: bool,
}

/// `struct SlirpCb`. What is `None` is for IPv6, which is off, or may be left out.
#[repr(C)]
struct Callbacks {
    send_packet: extern "C" fn(*const c_void, usize, *mut c_void) -> isize,
    guest_error: extern "C" fn(*const c_char, *mut c_void),
    clock_get_ns: extern "C" fn(*mut c_void) -> i64,
    timer_new: Option<extern "C" fn()>,
    timer_free: Option<extern "C" fn()>,
    timer_mod: Option<extern "C" fn()>,
    register_poll_fd: extern "C" fn(c_int, *mut c_void),
    unregister_poll_fd: extern "C" fn(c_int, *mut c_void),
    notify: extern "C" fn(*mut c_void),
    init_completed: Option<extern "C" fn()>,
    timer_new_opaque: Option<extern "C" fn()>,
}

static CALLBACKS: Callbacks = Callbacks {
    send_packet,
    guest_error,
    clock_get_ns,
    timer_new: None,
    timer_free: None,
    timer_mod: None,
    register_poll_fd: ignore_fd,
    unregister_poll_fd: ignore_fd,
    notify,
    init_completed: None,
    timer_new_opaque: None,
};

type AddPoll = extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
type GetEvents = extern "C" fn(c_int, *mut c_void) -> c_int;

/// The library's functions that are used.
struct Library {
    new: unsafe extern "C" fn(*const Config, *const Callbacks, *mut c_void) -> *mut Instance,
    cleanup: unsafe extern "C" fn(*mut Instance),
    input: unsafe extern "C" fn(*mut Instance, *const u8, c_int),
    pollfds_fill: unsafe extern "C" fn(*mut Instance, *mut u32, AddPoll, *mut c_void),
    pollfds_poll: unsafe extern "C" fn(*mut Instance, c_int, GetEvents, *mut c_void),
    add_hostfwd: unsafe extern "C" fn(
        *mut Instance,
        c_int,
        libc::in_addr,
        c_int,
        libc::in_addr,
        c_int,
    ) -> c_int,
    /// Open as long as its functions are known.
    _file: libloading::Library,
}

/// Why there is no library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LibraryError(String);

impl From<libloading::Error> for LibraryError {
    fn from(error: libloading::Error) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for LibraryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Opened once and never closed: the libraries below it can't be.
static LIBRARY: OnceLock<Result<Library, LibraryError>> = OnceLock::new();

static LOCK: Mutex<()> = Mutex::new(());

fn lock() -> MutexGuard<'static, ()> {
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Library {
    fn get() -> Result<&'static Self, LibraryError> {
        LIBRARY
            .get_or_init(Self::open)
            .as_ref()
            .map_err(Clone::clone)
    }

    fn open() -> Result<Self, LibraryError> {
        let open = |name: &str| {
            // SAFETY: the library's initializers are those of glib, which may run at any time.
            unsafe { libloading::Library::new(name) }
        };
        let file = open(NAME).or_else(|error| open(OF_A_PORT).map_err(|_| error))?;
        // SAFETY: the types are those of libslirp.h.
        unsafe {
            Ok(Self {
                new: *file.get(b"slirp_new")?,
                cleanup: *file.get(b"slirp_cleanup")?,
                input: *file.get(b"slirp_input")?,
                pollfds_fill: *file.get(b"slirp_pollfds_fill")?,
                pollfds_poll: *file.get(b"slirp_pollfds_poll")?,
                add_hostfwd: *file.get(b"slirp_add_hostfwd")?,
                _file: file,
            })
        }
    }
}

/// What an instance is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The guest reaches nothing but the stack itself, and what is forwarded to it.
    pub restricted: bool,
    /// Of what the guest receives.
    pub mtu: u32,
}

/// A port of the host that is forwarded to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostForward {
    pub udp: bool,
    pub host: SocketAddrV4,
    /// The address 0.0.0.0 is the first one that DHCP gives.
    pub guest: SocketAddrV4,
}

/// Gets each frame for the guest.
pub type Deliver = Box<dyn Fn(&[u8]) + Send>;

/// What the library's callbacks work on.
struct Context {
    start: Instant,
    deliver: Deliver,
}

/// An instance of the stack, for one guest: 10.0.2.0/24 with the host at 10.0.2.2, names
/// resolved at 10.0.2.3, and DHCP from 10.0.2.15 on, as in bhyve(8).
pub struct Slirp {
    library: &'static Library,
    instance: NonNull<Instance>,
    /// Freed after the instance.
    context: NonNull<Context>,
    polled: Vec<libc::pollfd>,
}

// SAFETY: the instance may be used by any one thread at a time, and a context's parts are Send.
unsafe impl Send for Slirp {}

impl Slirp {
    /// `None` if the library refuses the settings.
    pub fn new(settings: Settings, deliver: Deliver) -> Result<Option<Self>, LibraryError> {
        let library = Library::get()?;
        let start = Instant::now();
        let context = NonNull::from(Box::leak(Box::new(Context { start, deliver })));
        let config = Config {
            version: CONFIG_VERSION,
            restricted: settings.restricted.into(),
            in_enabled: true,
            vnetwork: in_addr(Ipv4Addr::new(10, 0, 2, 0)),
            vnetmask: in_addr(Ipv4Addr::new(255, 255, 255, 0)),
            vhost: in_addr(Ipv4Addr::new(10, 0, 2, 2)),
            in6_enabled: false,
            vprefix_addr6: libc::in6_addr { s6_addr: [0; 16] },
            vprefix_len: 0,
            vhost6: libc::in6_addr { s6_addr: [0; 16] },
            vhostname: ptr::null(),
            tftp_server_name: ptr::null(),
            tftp_path: ptr::null(),
            bootfile: ptr::null(),
            vdhcp_start: in_addr(Ipv4Addr::new(10, 0, 2, 15)),
            vnameserver: in_addr(Ipv4Addr::new(10, 0, 2, 3)),
            vnameserver6: libc::in6_addr { s6_addr: [0; 16] },
            vdnssearch: ptr::null(),
            vdomainname: ptr::null(),
            if_mtu: settings.mtu as usize,
            if_mru: settings.mtu as usize,
            disable_host_loopback: false,
            enable_emu: false,
            outbound_addr: ptr::null(),
            outbound_addr6: ptr::null(),
            disable_dns: false,
            disable_dhcp: false,
        };
        let guard = lock();
        // SAFETY: the configuration is read during the call only; callbacks and context
        // live as long as the instance.
        let instance = unsafe { (library.new)(&config, &CALLBACKS, context.as_ptr().cast()) };
        drop(guard);
        let Some(instance) = NonNull::new(instance) else {
            // SAFETY: from Box::leak above, and nobody has it any more.
            drop(unsafe { Box::from_raw(context.as_ptr()) });
            return Ok(None);
        };
        Ok(Some(Self {
            library,
            instance,
            context,
            polled: Vec::new(),
        }))
    }

    /// Listens on the host.
    pub fn forward(&mut self, rule: &HostForward) -> io::Result<()> {
        let _guard = lock();
        // SAFETY: the instance is alive; addresses in network order, ports in the host's.
        let result = unsafe {
            (self.library.add_hostfwd)(
                self.instance.as_ptr(),
                rule.udp.into(),
                in_addr(*rule.host.ip()),
                rule.host.port().into(),
                in_addr(*rule.guest.ip()),
                rule.guest.port().into(),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// A frame from the guest.
    pub fn input(&mut self, frame: &[u8]) {
        let Ok(len) = c_int::try_from(frame.len()) else {
            return;
        };
        let _guard = lock();
        // SAFETY: the instance is alive; the frame is copied during the call.
        unsafe { (self.library.input)(self.instance.as_ptr(), frame.as_ptr(), len) };
    }

    /// Waits until `wake` can be read, a socket of the stack has something to do or a
    /// timer of its is due, and does what there is. True: `wake` can be read.
    pub fn run(&mut self, wake: BorrowedFd<'_>) -> io::Result<bool> {
        self.polled.clear();
        self.polled.push(libc::pollfd {
            fd: wake.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        let mut timeout = u32::MAX;
        let polled: *mut Vec<libc::pollfd> = &mut self.polled;
        let guard = lock();
        // SAFETY: the instance is alive; add_poll gets a vector that nobody else uses.
        unsafe {
            let fill = self.library.pollfds_fill;
            fill(
                self.instance.as_ptr(),
                &mut timeout,
                add_poll,
                polled.cast(),
            );
        }
        drop(guard);
        // SAFETY: an array of valid structures, as many as said.
        let result = unsafe {
            libc::poll(
                self.polled.as_mut_ptr(),
                self.polled.len() as libc::nfds_t,
                // "No limit" is -1 in both.
                c_int::try_from(timeout).unwrap_or(-1),
            )
        };
        let error = (result < 0).then(io::Error::last_os_error);
        let guard = lock();
        // SAFETY: the instance is alive; get_events reads the vector that add_poll filled.
        unsafe {
            let poll = self.library.pollfds_poll;
            let polled: *mut Vec<libc::pollfd> = &mut self.polled;
            poll(
                self.instance.as_ptr(),
                error.is_some().into(),
                get_events,
                polled.cast(),
            );
        }
        drop(guard);
        match error {
            Some(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            Some(_) => Ok(false),
            None => Ok(self.polled.first().is_some_and(|wake| wake.revents != 0)),
        }
    }
}

impl Drop for Slirp {
    fn drop(&mut self) {
        let _guard = lock();
        // SAFETY: nobody else has the instance, and after it nobody has the context, which
        // is from Box::leak.
        unsafe {
            (self.library.cleanup)(self.instance.as_ptr());
            drop(Box::from_raw(self.context.as_ptr()));
        }
    }
}

fn in_addr(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from_ne_bytes(address.octets()),
    }
}

extern "C" fn send_packet(frame: *const c_void, len: usize, context: *mut c_void) -> isize {
    // SAFETY: the library gives `len` bytes that it doesn't change during the call, and the
    // context of slirp_new, which lives as long as the instance and is only shared.
    let (frame, context) = unsafe {
        (
            std::slice::from_raw_parts(frame.cast::<u8>(), len),
            &*context.cast::<Context>(),
        )
    };
    (context.deliver)(frame);
    len as isize
}

/// What a guest does wrong is between it and the stack.
extern "C" fn guest_error(_message: *const c_char, _context: *mut c_void) {}

extern "C" fn clock_get_ns(context: *mut c_void) -> i64 {
    // SAFETY: as in send_packet.
    let context = unsafe { &*context.cast::<Context>() };
    i64::try_from(context.start.elapsed().as_nanos()).unwrap_or(i64::MAX)
}

/// All descriptors are asked for anew before each wait.
extern "C" fn ignore_fd(_fd: c_int, _context: *mut c_void) {}

/// Comes from calls of the only thread that waits.
extern "C" fn notify(_context: *mut c_void) {}

extern "C" fn add_poll(fd: c_int, events: c_int, polled: *mut c_void) -> c_int {
    // SAFETY: the vector that `Slirp::run` gave, for the time of the call.
    let polled = unsafe { &mut *polled.cast::<Vec<libc::pollfd>>() };
    polled.push(libc::pollfd {
        fd,
        events: to_poll(events),
        revents: 0,
    });
    c_int::try_from(polled.len() - 1).unwrap_or(-1)
}

extern "C" fn get_events(index: c_int, polled: *mut c_void) -> c_int {
    // SAFETY: the vector that `Slirp::run` gave, for the time of the call.
    let polled = unsafe { &*polled.cast::<Vec<libc::pollfd>>() };
    let file = usize::try_from(index).ok().and_then(|n| polled.get(n));
    file.map_or(0, |file| {
        // poll(2) tells of a hang-up that nobody asked for.
        let unasked = libc::POLLHUP & !file.events;
        from_poll(file.revents & !unasked)
    })
}

fn to_poll(events: c_int) -> i16 {
    let wanted = EVENTS.iter().filter(|(of_slirp, _)| events & of_slirp != 0);
    wanted.fold(0, |all, (_, of_poll)| all | of_poll)
}

fn from_poll(events: i16) -> c_int {
    let there = EVENTS.iter().filter(|(_, of_poll)| events & of_poll != 0);
    there.fold(0, |all, (of_slirp, _)| all | of_slirp)
}
