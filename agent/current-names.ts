/**
 * The names that inodes have in the state, at the moment of the answer.
 *
 * Whoever asks is about to have them looked at. A rename of a directory above one of them that is recorded between the question and the
 * answer would leave a name that leads nowhere, and nobody would look at the new one; what is looked at already follows a rename.
 */
import type { Label, RelativePath } from '../shared/path.ts'
import type { Renames } from './renames.ts'
import type { State } from './state.ts'

export async function currentNames(
  { state, renames }: { readonly state: Pick<State, 'namesOf'>; readonly renames: Renames },
  volume: Label,
  inodes: readonly bigint[],
): Promise<readonly RelativePath[]> {
  for (;;) {
    const { recordedCount } = renames
    const names = await state.namesOf(volume, inodes)
    if (renames.recordedCount === recordedCount) return names
  }
}
