/**
 * Every bound of the system, in one place, with the relations between them asserted when the module loads.
 *
 * Invariant: nothing that a peer, a disk or a storm can make grow is without a bound here.
 * It prevents a process that dies of memory when it is needed most, and two bounds that contradict each other.
 */
import assert from 'node:assert/strict'

const KiB = 1024
const MiB = 1024 * KiB

/** Longest path below a volume's root, in bytes (Linux PATH_MAX). */
export const PATH_BYTES_MAX = 4096
/** Files of a volume that an agent remembers as decayed on their disk. */
export const ROTTEN_PATHS_MAX = 1000
/** Longest single name, in bytes (Linux NAME_MAX). */
export const NAME_BYTES_MAX = 255
/** Longest agent or volume name, in ASCII characters. */
export const LABEL_MAX = 64

/** Largest chunk that any repository may be configured for, in plain bytes. */
export const CHUNK_BYTES_MAX = 16 * MiB
/** Most chunks of one version: 16 TiB at the smallest sensible average. */
export const CHUNKS_PER_VERSION_MAX = 1 << 22
/** All xattrs of one file together, in bytes (Linux XATTR_LIST_MAX and XATTR_SIZE_MAX are 64 KiB each; several values). */
export const XATTRS_BYTES_MAX = 1 * MiB
/** Most xattrs of one file. */
export const XATTRS_MAX = 1024
/** Largest single record: a version with the most chunks. */
export const RECORD_BYTES_MAX = 192 * MiB

/** Largest plain payload of one frame of a pack or segment. */
export const FRAME_BYTES_MAX = 256 * MiB
/** A pack is sealed when it has reached this size. */
export const PACK_BYTES_TARGET = 64 * MiB
/** A segment is sealed when it has reached this size. */
export const SEGMENT_BYTES_TARGET = 16 * MiB

/** Largest small file of a copy: who writes it, a key slot, the identity of a collector with its agents. */
export const SMALL_FILE_BYTES_MAX = 16 * MiB

/** Largest WebSocket message. */
export const MESSAGE_BYTES_MAX = 200 * MiB
/** Largest control message (CBOR). */
export const CONTROL_BYTES_MAX = 1 * MiB
/** Bytes of chunks and records that a sender may have outstanding before an ack. */
export const WINDOW_BYTES = 64 * MiB
/** Digests of one Offer. */
export const OFFER_DIGESTS_MAX = 8192
/** Files in which an agent is told to look for one chunk. */
export const ASKED_SPOTS_MAX = 4
/** Questions for content that one agent has not answered yet. */
export const ASKS_MAX = 4
/** Records of one Records message. */
export const RECORDS_PER_MESSAGE_MAX = 4096
/** Plain bytes of records gathered into one Records message (one larger record goes alone). */
export const RECORDS_MESSAGE_BYTES_TARGET = 1 * MiB
/** Sessions that a collector serves at once. */
export const SESSIONS_MAX = 1024

/** A group commit at the collector waits for no more than these bytes. */
export const COMMIT_BYTES_TARGET = 8 * MiB
/** Plain chunk bytes that the collector keeps for its replica, so that new content is not read back from disk. */
export const CHUNK_CACHE_BYTES = 128 * MiB
/** Content that the replica writes beside a syncfs of what it wrote before; beyond these bytes it waits. */
export const REPLICA_UNSYNCED_BYTES_MAX = 256 * MiB

/** Captured content that the agent holds in memory until it is acked. */
export const HELD_BYTES_MAX = 128 * MiB
/** A spool segment file is closed when it has reached this size. */
export const SPOOL_SEGMENT_BYTES = 64 * MiB
/** Default quota of the agent's spool. */
export const SPOOL_BYTES_MAX = 16 * 1024 * MiB
/** The spool never takes the filesystem's last free bytes: it stops at this share of its size. */
export const SPOOL_FREE_FLOOR = 0.05
/** A file of the agent that is thrown away when its disk is full. */
export const BALLAST_BYTES = 32 * MiB
/** After its disk was full the agent's journal is written again when there is this much, or the floor's share of a smaller disk. */
export const JOURNAL_ROOM_BYTES = 2 * BALLAST_BYTES
/** A spool that will be full sooner than that is an alarm, in seconds. */
export const SPOOL_FULL_SOON_SECONDS = 3600
/** Records in one group commit of the agent's journal. */
export const JOURNAL_BATCH_MAX = 1024

/** Resident memory of an agent with nothing to do that is left alone. */
export const RESIDENT_BYTES_TARGET = 160 * MiB

/** Ignore patterns of one volume. */
export const IGNORE_PATTERNS_MAX = 1000

/** Paths of one volume that wait to be looked at because of events; beyond these the volume is scanned instead. */
export const DIRTY_PATHS_MAX = 300_000
/** Paths found by a scan that wait to be looked at; beyond these the scan waits. */
export const SCAN_PATHS_MAX = 4096
/** Events that a watcher may hold back before they collapse to a rescan. */
export const EVENTS_QUEUED_MAX = 100_000
/** Bytes of kernel events that were read and are not journalled yet; beyond these they wait in the kernel. */
export const HINT_LOG_BYTES = 1024 * MiB
/** Bytes of kernel events read at once. */
export const EVENT_BYTES_MAX = 256 * KiB
/** How often watching is proven, in ms. */
export const CANARY_MS = 5000
/** A watcher that was not proven to work for this long is an alarm, and the supervisor is told no more that all is well, in ms. */
export const SILENCE_MS_MAX = 15_000
/** Versions held open until they are captured; beyond these they wait in the kernel, which keeps them too. */
export const PINS_OPEN_MAX = 256
/** Files kept in mind because they were captured while open for writing. */
export const OPEN_FILES_MAX = 10_000
/** Files up to this size are read as a whole, so that their lease is given up before they are hashed. */
export const WHOLE_READ_BYTES_MAX = 8 * MiB
/** Bytes read between two looks at whether a writer waits for the lease. */
export const LEASE_PIECE_BYTES = 256 * KiB
/** Captured bytes under way from one capture thread before it waits. */
export const CAPTURE_BYTES_IN_FLIGHT = 32 * MiB
/** Threads of one scan. */
export const SCAN_THREADS_MAX = 4
/** Batches of differences under way from the threads of one scan before they wait. */
export const SCAN_BATCHES_IN_FLIGHT = 8
/** Unreadable paths, and filesystems not entered, that are listed by name. */
export const PATHS_LISTED_MAX = 100
/** Batches of records that an agent prepares ahead of the one it is sending. */
export const SESSION_BATCHES_MAX = 8
/** Digests that an agent remembers as known to its collector. */
export const KNOWN_DIGESTS_MAX = 32_768

/** Largest question to a program on the same host (`admin.sock`, `agent.sock`), in bytes of JSON. */
export const LOCAL_REQUEST_BYTES_MAX = 16 * MiB
/** Largest answer in one piece; what may be larger is streamed. */
export const LOCAL_REPLY_BYTES_MAX = 256 * MiB
/** Largest enrolment request or answer. */
export const ENROLLMENT_BYTES_MAX = 16 * KiB
/** Enrolments that may fail from one address within a minute before it is turned away unheard. */
export const ENROLLMENT_FAILURES_MAX = 10

/** Connections without a certificate at once, where some restorer has a password. */
export const GUESTS_MAX = 32
/** Passwords that may be wrong from one address within a minute before it is turned away unheard. */
export const PASSWORD_FAILURES_MAX = 10
/** Passwords that are checked at once, each of which takes 32 MiB and some 60 ms of a core, and that wait for it. */
export const PASSWORD_CHECKS_MAX = 2
export const PASSWORD_CHECKS_WAITING_MAX = 64
/** Answers to restorers at once, to one and to all. */
export const ANSWERS_PER_RESTORER_MAX = 16
export const ANSWERS_MAX = 64
/** Largest question of a restorer, in bytes of JSON, and the files and chunks whose content one may ask for. */
export const QUESTION_BYTES_MAX = 4 * MiB
export const ASKED_FILES_MAX = 4096
export const ASKED_CHUNKS_MAX = 65_536
/** Largest body of a PROPFIND. */
export const PROPFIND_BYTES_MAX = 64 * KiB
/** Whoever is sent something and takes nothing of it for so long loses the connection, in ms: somebody may be reading page by page. */
export const READER_STALL_MS = 10 * 60_000
/** A whole request arrives within that time, in ms. */
export const REQUEST_MS_MAX = 30_000

/** A peer's clock may differ by this much before its time is not taken over, in ms. */
export const CLOCK_SKEW_MS_MAX = 5 * 60_000

assert.ok(SILENCE_MS_MAX > 2 * CANARY_MS, 'one late canary is no silence')
assert.ok(FRAME_BYTES_MAX >= CHUNK_BYTES_MAX, 'a chunk fits a frame')
assert.ok(FRAME_BYTES_MAX >= RECORD_BYTES_MAX, 'a record fits a frame')
assert.ok(RECORD_BYTES_MAX >= CHUNKS_PER_VERSION_MAX * 37 + XATTRS_BYTES_MAX + PATH_BYTES_MAX * 2, 'the largest version fits a record')
assert.ok(MESSAGE_BYTES_MAX > RECORD_BYTES_MAX, 'the largest record fits a message')
assert.ok(RECORDS_PER_MESSAGE_MAX >= 2 * JOURNAL_BATCH_MAX, 'what was appended together fits a message')
assert.ok(WINDOW_BYTES >= 2 * CHUNK_BYTES_MAX, 'two chunks fit the window, so that one can be under way while one is acked')
assert.ok(JOURNAL_ROOM_BYTES > BALLAST_BYTES, 'throwing the ballast away does not by itself let the journal go on')
assert.ok(PASSWORD_CHECKS_WAITING_MAX > GUESTS_MAX, 'each guest may wait with one')
assert.ok(ANSWERS_MAX > ANSWERS_PER_RESTORER_MAX, 'one restorer does not shut out the others')
assert.ok(CONTROL_BYTES_MAX >= OFFER_DIGESTS_MAX * 32, 'an offer fits a control message')
