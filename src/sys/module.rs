//! Functions as places that another process of the same program can find: which module, and how far into it.
//!
//! A module (the executable, or a shared library) is known by a hash of its build id and of the shape of its segments. The
//! executable of a child is the parent's, but nothing keeps a shared library from being replaced in between.
//!
//! # References
//! `dl_iterate_phdr(3)`, `elf(5)`.

use crate::element::{fnv_start, fnv_u64};
use std::ffi::c_void;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicPtr, Ordering};

const NT_GNU_BUILD_ID: u32 = 3;

/// A function's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Place {
    /// Hash of the module.
    pub module: u64,
    /// Bytes from the module's load address.
    pub offset: u64,
}

/// Why a place cannot be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// No module of that hash is loaded.
    NoSuchModule,
    /// The offset is not in the module's code.
    NotCode,
}

/// The place of the function at `address`; `None` if it lies in no module.
pub(crate) fn place_of(address: usize) -> Option<Place> {
    let place = |module: &Module<'_>, hash: &dyn Fn() -> u64| {
        let offset = (address as u64).wrapping_sub(module.base);
        module.is_code(offset).then(|| Place { module: hash(), offset })
    };
    let main = main_module();
    main.and_then(|(module, hash)| place(module, &|| *hash))
        .or_else(|| each(|module| place(&module, &|| module.hash())))
}

/// The address of a place in this process.
pub(crate) fn address_of(place: Place) -> Result<usize, Lost> {
    let address = |module: &Module<'_>| {
        let address = module.base.wrapping_add(place.offset) as usize;
        if module.is_code(place.offset) { Ok(address) } else { Err(Lost::NotCode) }
    };
    if let Some((module, _)) = main_module().filter(|(_, hash)| *hash == place.module) {
        return address(module);
    }
    each(|module| (module.hash() == place.module).then(|| address(&module))).unwrap_or(Err(Lost::NoSuchModule))
}

/// The program itself, which is the first that the loader knows and stays loaded, and its hash; found once, and known to all
/// copies of this process.
pub(crate) fn main_module() -> Option<&'static (Module<'static>, u64)> {
    static MAIN: AtomicPtr<(Module<'static>, u64)> = AtomicPtr::new(std::ptr::null_mut());
    // Acquire pairs with the release below.
    let mut main = MAIN.load(Ordering::Acquire);
    if main.is_null() {
        let (base, headers) = each(|module| Some((module.base, module.headers.to_vec())))?;
        let module = Module { base, headers: headers.leak() };
        let hash = module.hash();
        main = Box::leak(Box::new((module, hash)));
        // Of two threads that look for it at once one has looked in vain.
        MAIN.store(main, Ordering::Release);
    }
    // SAFETY: leaked above, or by another thread.
    Some(unsafe { &*main })
}

/// Has copies of this process begin with the code that it has mapped, instead of mapping it piece by piece as they come to it:
/// that is most of what a short-lived copy does. This process must have one thread.
///
/// The system copies the page table of mapped code only where it has reason to think that the code is not just the file's. A
/// guard page is such a reason, and stays one when it is gone again. It stands for a moment on a page that nobody runs meanwhile.
/// A system that does not know guard pages on code (before Linux 6.15) says so, and nothing is changed.
///
/// # References
/// `madvise(2)`, `MADV_GUARD_INSTALL`; `proc_pid_pagemap(5)`.
pub(crate) fn give_code_to_copies() {
    /// Smaller pieces are not worth it.
    const LEAST: usize = 16 * PAGE;
    let calls = libc::madvise as unsafe extern "C" fn(*mut c_void, usize, i32) -> i32 as usize;
    let is_run = |page: &usize| [blink as fn(usize) as usize, calls].iter().any(|code| code.abs_diff(*page) < 3 * PAGE);
    // What somebody has written into the code, a debugger for instance, would be lost with its page.
    let map = std::fs::File::open("/proc/self/pagemap");
    let is_the_files = |page: &usize| {
        let mut entry = [0; 8];
        let read = map.as_ref().is_ok_and(|map| map.read_exact_at(&mut entry, (page / PAGE * 8) as u64).is_ok());
        let entry = u64::from_ne_bytes(entry);
        let [is_present, is_swapped, is_file] = [63, 62, 61].map(|bit| entry >> bit & 1 == 1);
        read && !is_swapped && (is_file || !is_present)
    };
    if super::memory::page_size() as usize != PAGE {
        return;
    }
    let mut pages = Vec::new();
    each(|module| {
        for header in module.headers {
            let is_code = header.p_type == libc::PT_LOAD && header.p_flags & (libc::PF_X | libc::PF_W) == libc::PF_X;
            let len = header.p_filesz as usize;
            if is_code && len >= LEAST {
                let start = module.base.wrapping_add(header.p_vaddr) as usize;
                // Not the first pages: calls into other modules may go through there.
                let page_at = |offset: usize| (start + offset) & !(PAGE - 1);
                let candidates = [page_at(len - 1), page_at(len / 2)];
                pages.extend(candidates.into_iter().find(|page| !is_run(page) && is_the_files(page)));
            }
        }
        None::<()>
    });
    // No handler may run what is on such a page.
    super::spawn::without_signals(|| pages.into_iter().for_each(blink));
}

const PAGE: usize = 4096;

/// Puts a guard on a page and takes it away again. Between the two calls nothing runs but this function and the C library's.
#[inline(never)]
fn blink(page: usize) {
    const MADV_GUARD_INSTALL: i32 = 102;
    const MADV_GUARD_REMOVE: i32 = 103;
    let page = page as *mut c_void;
    // SAFETY: the page is code of a loaded file, which the kernel finds again; neither this function nor the C library's is on it,
    // and no other thread runs.
    unsafe {
        if libc::madvise(page, PAGE, MADV_GUARD_INSTALL) != 0 {
            return;
        }
        // An interruption is the only reason not to take it away.
        while libc::madvise(page, PAGE, MADV_GUARD_REMOVE) != 0 {}
    }
}

pub(crate) struct Module<'a> {
    base: u64,
    headers: &'a [libc::Elf64_Phdr],
}

impl Module<'_> {
    fn is_code(&self, offset: u64) -> bool {
        self.headers.iter().any(|header| {
            header.p_type == libc::PT_LOAD
                && header.p_flags & libc::PF_X != 0
                && offset.checked_sub(header.p_vaddr).is_some_and(|inside| inside < header.p_memsz)
        })
    }

    fn hash(&self) -> u64 {
        let mut hash = fnv_start();
        for header in self.headers {
            for word in [u64::from(header.p_type), header.p_vaddr, header.p_filesz, header.p_memsz] {
                hash = fnv_u64(hash, word);
            }
            if header.p_type == libc::PT_NOTE {
                let start = self.base.wrapping_add(header.p_vaddr) as *const u8;
                // SAFETY: the loader has mapped the module's notes read-only at this address for as long as it is loaded.
                let notes = unsafe { std::slice::from_raw_parts(start, header.p_memsz as usize) };
                hash = build_id(notes).iter().fold(hash, |hash, &byte| fnv_u64(hash, u64::from(byte)));
            }
        }
        hash
    }
}

/// The build id among `notes`, or nothing.
fn build_id(mut notes: &[u8]) -> &[u8] {
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    while let (Some(name_len), Some(len), Some(kind)) = (word(notes, 0), word(notes, 4), word(notes, 8)) {
        let start = 12 + name_len.next_multiple_of(4);
        let (Some(name), Some(id)) = (notes.get(12..12 + name_len), notes.get(start..start + len)) else { break };
        if kind == NT_GNU_BUILD_ID as usize && name == b"GNU\0" {
            return id;
        }
        notes = notes.get(start + len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    &[]
}

/// Asks every module until one gives an answer.
fn each<R>(mut ask: impl FnMut(Module<'_>) -> Option<R>) -> Option<R> {
    type Ask<'a, R> = (&'a mut dyn FnMut(Module<'_>) -> Option<R>, Option<R>);
    extern "C" fn visit<R>(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> i32 {
        // SAFETY: `data` is the pair that `each` passes for the time of the call.
        let (ask, answer) = unsafe { &mut *data.cast::<Ask<'_, R>>() };
        // SAFETY: the loader gives a valid description, whose headers live as long as the module is loaded.
        let module = unsafe {
            let info = &*info;
            if info.dlpi_phdr.is_null() {
                return 0;
            }
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
            Module { base: info.dlpi_addr, headers }
        };
        *answer = ask(module);
        i32::from(answer.is_some())
    }
    let mut data: Ask<'_, R> = (&mut ask, None);
    // SAFETY: `visit` is given the pair it expects; it does not unwind, for the closures here do not.
    unsafe { libc::dl_iterate_phdr(Some(visit::<R>), (&raw mut data).cast()) };
    data.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody() {}

    #[test]
    fn a_function_is_found_again() {
        let address = somebody as fn() as usize;
        let place = place_of(address).unwrap();
        assert_eq!(address_of(place), Ok(address));
    }

    #[test]
    fn a_function_of_another_library_is_found_again() {
        let address = libc::getpid as unsafe extern "C" fn() -> i32 as usize;
        assert_eq!(address_of(place_of(address).unwrap()), Ok(address));
    }

    #[test]
    fn another_module_or_a_place_outside_the_code_is_refused() {
        let place = place_of(somebody as fn() as usize).unwrap();
        assert_eq!(address_of(Place { module: !place.module, ..place }), Err(Lost::NoSuchModule));
        assert_eq!(address_of(Place { offset: u64::MAX, ..place }), Err(Lost::NotCode));
        assert_eq!(place_of(&raw const place as usize), None);
    }
}
