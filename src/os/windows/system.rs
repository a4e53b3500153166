//! The system calls that no safe crate offers: who a user or process is, a pipe that only one user may open, whose a TCP
//! connection is. The only unsafe code for Windows; each function gives plain values.
#![expect(unsafe_code, reason = "access control lists, tokens and tables of the system have no safe interface")]

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::os::windows::io::{AsRawHandle, AsRawSocket, FromRawHandle, IntoRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};

use tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer};
use windows_sys::Wdk::Storage::FileSystem::{
    FILE_PIPE_CLOSING_STATE, FILE_PIPE_LOCAL_INFORMATION, FilePipeLocalInformation, NtQueryInformationFile,
};
use windows_sys::Win32::Foundation::{
    ERROR_INSUFFICIENT_BUFFER, ERROR_SUCCESS, HANDLE, HANDLE_FLAG_INHERIT, INVALID_HANDLE_VALUE, LocalFree,
    SetHandleInformation,
};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    GetExtendedTcpTable, MIB_TCP6ROW_OWNER_PID, MIB_TCPROW_OWNER_PID, NotifyAddrChange, TCP_TABLE_OWNER_PID_ALL,
};
use windows_sys::Win32::Networking::WinSock::{AF_INET, AF_INET6, SO_EXCLUSIVEADDRUSE, SOL_SOCKET, setsockopt};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo, SDDL_REVISION_1,
    SE_KERNEL_OBJECT,
};
use windows_sys::Win32::Security::{
    GetTokenInformation, OWNER_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR, PSID, SECURITY_ATTRIBUTES, TOKEN_QUERY,
    TOKEN_USER, TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, PIPE_ACCESS_DUPLEX,
};
use windows_sys::Win32::System::Console::{GetStdHandle, STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, GetNamedPipeClientProcessId, GetNamedPipeServerProcessId, PIPE_READMODE_BYTE,
    PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_MESSAGE, PIPE_UNLIMITED_INSTANCES,
};
use windows_sys::Win32::System::Threading::{
    OpenProcess, OpenProcessToken, PROCESS_QUERY_LIMITED_INFORMATION, QueryFullProcessImageNameW,
};

/// Bytes that a pipe holds for whoever does not read, in each direction.
const BUFFER: u32 = 64 << 10;

fn wide(text: &OsStr) -> Vec<u16> {
    text.encode_wide().chain([0]).collect()
}

fn done(succeeded: i32) -> io::Result<()> {
    if succeeded == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A process, opened for what anybody may ask of it. That of another user may be refused.
fn open_process(pid: u32) -> io::Result<OwnedHandle> {
    // SAFETY: takes plain values.
    let handle = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) };
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a handle that was just opened, and is nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// The SID of the user as whom a process runs, as text (`S-1-5-21-…`).
pub(super) fn user_of(pid: u32) -> io::Result<String> {
    let process = open_process(pid)?;
    let mut token: HANDLE = null_mut();
    // SAFETY: the process is open, and `token` is written only on success.
    done(unsafe { OpenProcessToken(process.as_raw_handle(), TOKEN_QUERY, &mut token) })?;
    // SAFETY: a handle that was just opened, and is nobody else's.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let mut size = 0;
    // SAFETY: with no buffer only the size is written.
    unsafe { GetTokenInformation(token.as_raw_handle(), TokenUser, null_mut(), 0, &mut size) };
    // In words of 8 bytes, for its alignment.
    let mut buffer = vec![0_u64; (size as usize).div_ceil(8)];
    // SAFETY: the buffer has `size` bytes.
    done(unsafe {
        GetTokenInformation(token.as_raw_handle(), TokenUser, buffer.as_mut_ptr().cast(), size, &mut size)
    })?;
    // SAFETY: on success it begins with a TOKEN_USER, whose SID is in the same buffer, which lives on.
    let sid = unsafe { (*buffer.as_ptr().cast::<TOKEN_USER>()).User.Sid };
    text_of(sid)
}

/// `sid` must point to a SID.
fn text_of(sid: PSID) -> io::Result<String> {
    let mut text: *mut u16 = null_mut();
    // SAFETY: the callers' SIDs are the system's; `text` is written only on success.
    done(unsafe { ConvertSidToStringSidW(sid, &mut text) })?;
    let mut length = 0;
    // SAFETY: on success it is a string of the system's that ends with a zero.
    let words = unsafe {
        while *text.add(length) != 0 {
            length += 1;
        }
        std::slice::from_raw_parts(text, length).to_vec()
    };
    // SAFETY: allocated by the system for the caller to free, and not used any more.
    unsafe { LocalFree(text.cast()) };
    Ok(String::from_utf16_lossy(&words))
}

/// The SID of whoever owns the object behind a handle that may be read.
pub(super) fn owner_of(handle: &impl AsRawHandle) -> io::Result<String> {
    let (mut owner, mut descriptor): (PSID, PSECURITY_DESCRIPTOR) = (null_mut(), null_mut());
    // SAFETY: the handle is open; only the owner and the descriptor are asked for, and written only on success.
    let error = unsafe {
        GetSecurityInfo(
            handle.as_raw_handle(),
            SE_KERNEL_OBJECT,
            OWNER_SECURITY_INFORMATION,
            &mut owner,
            null_mut(),
            null_mut(),
            null_mut(),
            &mut descriptor,
        )
    };
    if error != ERROR_SUCCESS {
        return Err(io::Error::from_raw_os_error(error.cast_signed()));
    }
    let text = text_of(owner);
    // SAFETY: allocated by the system for the caller to free; `owner`, which points into it, is not used any more.
    unsafe { LocalFree(descriptor) };
    text
}

/// Makes an instance of the pipe `name` that only the user `sid` may open, who owns it; other machines may not at all. Of
/// messages, read as bytes: an empty message ends a direction. The first instance is refused where the name is taken.
pub(super) fn make_pipe(name: &OsStr, sid: &str, is_first: bool) -> io::Result<OwnedHandle> {
    // Owner, and a protected list (nothing is inherited) that grants all to this user alone ("Security Descriptor String
    // Format").
    let list = wide(OsStr::new(&format!("O:{sid}D:P(A;;GA;;;{sid})")));
    let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
    // SAFETY: the text ends with a zero; the descriptor is written only on success.
    done(unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            list.as_ptr(),
            SDDL_REVISION_1,
            &mut descriptor,
            null_mut(),
        )
    })?;
    let attributes = SECURITY_ATTRIBUTES {
        nLength: u32::try_from(size_of::<SECURITY_ATTRIBUTES>()).unwrap_or_default(),
        lpSecurityDescriptor: descriptor,
        bInheritHandle: 0,
    };
    let first = if is_first { FILE_FLAG_FIRST_PIPE_INSTANCE } else { 0 };
    let name = wide(name);
    // SAFETY: the name ends with a zero; the attributes and their descriptor live until the call has returned.
    let handle = unsafe {
        CreateNamedPipeW(
            name.as_ptr(),
            PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | first,
            PIPE_TYPE_MESSAGE | PIPE_READMODE_BYTE | PIPE_REJECT_REMOTE_CLIENTS,
            PIPE_UNLIMITED_INSTANCES,
            BUFFER,
            BUFFER,
            0,
            &attributes,
        )
    };
    let made = match handle {
        INVALID_HANDLE_VALUE => Err(io::Error::last_os_error()),
        // SAFETY: a handle that was just made, and is nobody else's.
        handle => Ok(unsafe { OwnedHandle::from_raw_handle(handle) }),
    };
    // SAFETY: allocated by the system for the caller to free, and not used any more.
    unsafe { LocalFree(descriptor) };
    made
}

/// Registers a pipe's server end with the current runtime.
pub(super) fn server(pipe: OwnedHandle) -> io::Result<NamedPipeServer> {
    // SAFETY: a pipe's server end, opened for overlapped access, which is handed over.
    unsafe { NamedPipeServer::from_raw_handle(pipe.into_raw_handle()) }
}

/// Registers a pipe's client end with the current runtime.
pub(super) fn client(pipe: OwnedHandle) -> io::Result<NamedPipeClient> {
    // SAFETY: a pipe's client end, opened for overlapped access, which is handed over.
    unsafe { NamedPipeClient::from_raw_handle(pipe.into_raw_handle()) }
}

/// The process at the other end of a pipe, of which `pipe` is the server's end.
pub(super) fn client_process(pipe: &impl AsRawHandle) -> io::Result<u32> {
    let mut pid = 0;
    // SAFETY: the handle is open, and the number is written only on success.
    done(unsafe { GetNamedPipeClientProcessId(pipe.as_raw_handle(), &mut pid) })?;
    Ok(pid)
}

/// The process that made the pipe of which `pipe` is a client's end.
pub(super) fn server_process(pipe: &impl AsRawHandle) -> io::Result<u32> {
    let mut pid = 0;
    // SAFETY: the handle is open, and the number is written only on success.
    done(unsafe { GetNamedPipeServerProcessId(pipe.as_raw_handle(), &mut pid) })?;
    Ok(pid)
}

/// Whether the other end of a pipe was closed, read to its end or not.
pub(super) fn is_other_end_closed(pipe: &impl AsRawHandle) -> bool {
    let mut information = MaybeUninit::<FILE_PIPE_LOCAL_INFORMATION>::zeroed();
    let mut status = MaybeUninit::<IO_STATUS_BLOCK>::zeroed();
    let size = u32::try_from(size_of::<FILE_PIPE_LOCAL_INFORMATION>()).unwrap_or_default();
    // SAFETY: the handle is open, and the buffer has the size and the layout of what is asked for.
    let answer = unsafe {
        NtQueryInformationFile(
            pipe.as_raw_handle(),
            status.as_mut_ptr(),
            information.as_mut_ptr().cast(),
            size,
            FilePipeLocalInformation,
        )
    };
    // SAFETY: numbers, for which zeros are values, too.
    answer < 0 || unsafe { information.assume_init() }.NamedPipeState == FILE_PIPE_CLOSING_STATE
}

/// The path of a process's program.
pub(super) fn program_of(pid: u32) -> io::Result<OsString> {
    let process = open_process(pid)?;
    let mut path = vec![0_u16; 32 << 10];
    let mut length = u32::try_from(path.len()).unwrap_or_default();
    // SAFETY: the process is open, and the buffer has `length` units.
    done(unsafe { QueryFullProcessImageNameW(process.as_raw_handle(), 0, path.as_mut_ptr(), &mut length) })?;
    Ok(OsString::from_wide(&path[..length as usize]))
}

/// The process that started the process `pid`, if it still runs: its number may be another's meanwhile.
pub(super) fn parent_of(pid: u32) -> Option<u32> {
    // SAFETY: takes plain values.
    let handle = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) };
    if handle == INVALID_HANDLE_VALUE {
        return None;
    }
    // SAFETY: a handle that was just opened, and is nobody else's.
    let snapshot = unsafe { OwnedHandle::from_raw_handle(handle) };
    // SAFETY: numbers and text, for which zeros are values.
    let mut entry: PROCESSENTRY32W = unsafe { MaybeUninit::zeroed().assume_init() };
    entry.dwSize = u32::try_from(size_of::<PROCESSENTRY32W>()).unwrap_or_default();
    // SAFETY: the snapshot is open, and the entry has its size.
    let mut found = unsafe { Process32FirstW(snapshot.as_raw_handle(), &mut entry) };
    while found != 0 {
        if entry.th32ProcessID == pid {
            return Some(entry.th32ParentProcessID);
        }
        // SAFETY: as before.
        found = unsafe { Process32NextW(snapshot.as_raw_handle(), &mut entry) };
    }
    None
}

/// Keeps this process's standard streams from the programs that it starts with others: who waits for their end would wait
/// for those programs.
pub(super) fn keep_standard_streams() {
    for stream in [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        // SAFETY: takes plain values; a stream that is not there is an error, which is none here.
        unsafe {
            SetHandleInformation(GetStdHandle(stream), HANDLE_FLAG_INHERIT, 0);
        }
    }
}

/// Has no other socket bind the address that this one will have.
pub(super) fn claim_alone(socket: &impl AsRawSocket) -> io::Result<()> {
    let on: i32 = 1;
    let socket = usize::try_from(socket.as_raw_socket()).map_err(io::Error::other)?;
    // SAFETY: the socket is open, and the option is a number of 4 bytes.
    let result = unsafe { setsockopt(socket, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, (&raw const on).cast(), 4) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until an address of this machine has changed. Blocks.
pub(super) fn wait_for_address_change() -> io::Result<()> {
    // SAFETY: without a place for a handle it waits itself.
    match unsafe { NotifyAddrChange(null_mut(), null()) } {
        ERROR_SUCCESS => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.cast_signed())),
    }
}

/// The process that has the TCP connection from `local` to `remote`; 0 for one that was closed. None where there is none.
pub(super) fn tcp_process(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    let port = |number: u32| u16::from_be(number as u16);
    match (local, remote) {
        (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
            let rows = tcp_table::<MIB_TCPROW_OWNER_PID>(AF_INET)?;
            let ends = [
                (u32::from_ne_bytes(local.ip().octets()), local.port()),
                (u32::from_ne_bytes(remote.ip().octets()), remote.port()),
            ];
            let is_it = |row: &&MIB_TCPROW_OWNER_PID| {
                [(row.dwLocalAddr, port(row.dwLocalPort)), (row.dwRemoteAddr, port(row.dwRemotePort))] == ends
            };
            Ok(rows.iter().find(is_it).map(|row| row.dwOwningPid))
        }
        (SocketAddr::V6(local), SocketAddr::V6(remote)) => {
            let rows = tcp_table::<MIB_TCP6ROW_OWNER_PID>(AF_INET6)?;
            let ends = [(local.ip().octets(), local.port()), (remote.ip().octets(), remote.port())];
            let is_it = |row: &&MIB_TCP6ROW_OWNER_PID| {
                [(row.ucLocalAddr, port(row.dwLocalPort)), (row.ucRemoteAddr, port(row.dwRemotePort))] == ends
            };
            Ok(rows.iter().find(is_it).map(|row| row.dwOwningPid))
        }
        _ => Ok(None),
    }
}

/// The rows of the table of TCP connections of an address family. `Row` must be the one of that family.
fn tcp_table<Row: Copy>(family: u16) -> io::Result<Vec<Row>> {
    /// A table that grows meanwhile is asked for again.
    const TRIES: usize = 5;
    let mut size = 64 << 10;
    for _ in 0..TRIES {
        let mut buffer = vec![0_u64; (size as usize).div_ceil(8)];
        // SAFETY: the buffer has `size` bytes.
        let error = unsafe {
            GetExtendedTcpTable(buffer.as_mut_ptr().cast(), &mut size, 0, family.into(), TCP_TABLE_OWNER_PID_ALL, 0)
        };
        match error {
            ERROR_SUCCESS => {
                // The number of rows, and the rows, which are of numbers of 4 bytes.
                let bytes = buffer.len() * 8;
                let count =
                    (buffer[0].to_ne_bytes()[..4].iter().rev().fold(0_usize, |n, byte| n << 8 | usize::from(*byte)))
                        .min((bytes - 4) / size_of::<Row>());
                // SAFETY: on success so many rows follow the first 4 bytes; they are plain numbers, read wherever they are.
                let row = |at| unsafe { buffer.as_ptr().cast::<u8>().add(4).cast::<Row>().add(at).read_unaligned() };
                return Ok((0..count).map(row).collect());
            }
            ERROR_INSUFFICIENT_BUFFER => {}
            error => return Err(io::Error::from_raw_os_error(error.cast_signed())),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}
