import Glibc
import Synchronization

/// Turns bus errors inside mapped files into zero bytes and a mark.
///
/// Touching a mapped page whose file was cut short, or whose disk failed, raises SIGBUS. The
/// handler finds the mapping in a fixed table of atomics, marks it, puts zero pages from the fault
/// to the mapping's end and returns, so the touch is repeated and succeeds. Faults elsewhere go to
/// whoever handled the signal before. The handler neither locks nor allocates.
enum MappingFaults {
    /// Most files mapped at once.
    static let capacity = 1024

    /// Starts guarding `bytes`, which must be non-empty and start on a page.
    ///
    /// - Parameter bytes: A live mapping.
    /// - Returns: The slot for the other calls, nil when all are taken.
    static func register(_ bytes: UnsafeRawBufferPointer) -> Int? {
        _ = installed
        let start = UInt(bitPattern: bytes.baseAddress)
        for index in 0..<capacity {
            let slot = table.slots + index
            let (isMine, _) = slot.pointee.isTaken.compareExchange(
                expected: false,
                desired: true,
                ordering: .acquiring
            )
            guard isMine else { continue }
            slot.pointee.isDamaged.store(false, ordering: .relaxed)
            slot.pointee.end.store(start + UInt(bytes.count), ordering: .relaxed)
            slot.pointee.start.store(start, ordering: .releasing)
            return index
        }
        return nil
    }

    /// Stops guarding; call it before the mapping goes away.
    static func unregister(_ index: Int) {
        let slot = table.slots + index
        slot.pointee.start.store(0, ordering: .relaxed)
        slot.pointee.isTaken.store(false, ordering: .releasing)
    }

    /// Whether a fault has ever been patched over in this mapping.
    static func isDamaged(_ index: Int) -> Bool {
        (table.slots + index).pointee.isDamaged.load(ordering: .sequentiallyConsistent)
    }
}

// MARK: Table

extension MappingFaults {
    private struct Slot: ~Copyable {
        let isTaken = Atomic(false)
        let isDamaged = Atomic(false)
        /// Address of the first byte, 0 while the slot guards nothing.
        let start = Atomic<UInt>(0)
        /// Address past the last byte.
        let end = Atomic<UInt>(0)
    }

    /// Sendable: slots are atomics; `previous` is written once, before the handler is installed.
    private struct Table: @unchecked Sendable {
        let slots: UnsafeMutablePointer<Slot>
        let previous: UnsafeMutablePointer<sigaction>
        let pageByteCount: UInt
    }

    /// Lives as long as the process, since a fault can come at any time.
    private static let table: Table = {
        let slots = UnsafeMutablePointer<Slot>.allocate(capacity: capacity)
        for index in 0..<capacity { (slots + index).initialize(to: Slot()) }
        let previous = UnsafeMutablePointer<sigaction>.allocate(capacity: 1)
        previous.initialize(to: sigaction())
        return Table(
            slots: slots,
            previous: previous,
            pageByteCount: UInt(sysconf(Int32(_SC_PAGESIZE)))
        )
    }()
}

// MARK: Handler

extension MappingFaults {
    /// Puts the handler in place, once.
    private static let installed: Void = {
        // The handler may run as soon as it is in place, so what it reads is made first.
        sigaction(SIGBUS, nil, table.previous)
        var action = sigaction()
        action.__sigaction_handler.sa_sigaction = { handle($0, $1, $2) }
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART
        sigemptyset(&action.sa_mask)
        sigaction(SIGBUS, &action, nil)
    }()

    private static func handle(
        _ signal: Int32,
        _ info: UnsafeMutablePointer<siginfo_t>?,
        _ context: UnsafeMutableRawPointer?
    ) {
        // Codes up to 0 are signals sent by a process; they carry no address.
        if let info, info.pointee.si_code > 0,
            repair(UInt(bitPattern: info.pointee._sifields._sigfault.si_addr))
        {
            return
        }
        passOn(signal, info, context)
    }

    /// Maps zeros from `address` to the end of its mapping; false when it lies in none of ours.
    private static func repair(_ address: UInt) -> Bool {
        let pageMask = table.pageByteCount - 1
        for index in 0..<capacity {
            let slot = table.slots + index
            let start = slot.pointee.start.load(ordering: .acquiring)
            let end = (slot.pointee.end.load(ordering: .relaxed) + pageMask) & ~pageMask
            guard start != 0, address >= start, address < end else { continue }
            // Marked first: who sees a zero must also see the mark.
            slot.pointee.isDamaged.store(true, ordering: .sequentiallyConsistent)
            let page = UnsafeMutableRawPointer(bitPattern: address & ~pageMask)
            let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE
            return mmap(page, Int(end - (address & ~pageMask)), PROT_READ, flags, -1, 0) == page
        }
        return false
    }

    /// Does what would have happened without this handler.
    private static func passOn(
        _ signal: Int32,
        _ info: UnsafeMutablePointer<siginfo_t>?,
        _ context: UnsafeMutableRawPointer?
    ) {
        let previous = table.previous.pointee
        let isIgnored = unsafeBitCast(previous.__sigaction_handler.sa_handler, to: Int.self) == 1
        let wasSent = info.map { $0.pointee.si_code <= 0 } ?? true
        if isIgnored && wasSent { return }
        if previous.sa_flags & SA_SIGINFO != 0, let next = previous.__sigaction_handler.sa_sigaction
        {
            next(signal, info, context)
        } else if !isIgnored, let next = previous.__sigaction_handler.sa_handler {
            next(signal)
        } else {
            // The default action ends the process: at once for a fault, which repeats, and through
            // the second signal, which waits until this handler returns, otherwise.
            var action = sigaction()
            sigaction(SIGBUS, &action, nil)
            if wasSent { raise(signal) }
        }
    }
}
