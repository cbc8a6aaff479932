/**
 * How far V8 may let its heap grow before it collects what is garbage.
 *
 * Left alone it takes several times what lives, as long as the machine has memory: of a fold of a million versions that lives in 40 MB,
 * 300. Collecting earlier costs a few percent of the time. The launcher does the other half, a small young generation, which cannot be set
 * any more once a process runs. It prevents a check, or an agent, from taking from its host what the host's own work needs.
 */
import { setFlagsFromString } from 'node:v8'

/** For all threads of this process: by how much what lives may grow before garbage is collected, in percent; V8 would let it grow fourfold. */
export function keepHeapSmall(growingPercent: number): void {
  setFlagsFromString(`--heap-growing-percent=${growingPercent}`)
}
