/**
 * Proving that everything which changed before a call is journalled, and marking the moment at which it is.
 *
 * Invariant: a mark stands behind every change that was made before it was asked for. It prevents a state named
 * "before-upgrade" that lacks the last file written before the upgrade.
 */
import { PacsimileError } from '../shared/errors.ts'
import type { Label } from '../shared/path.ts'
import type { Change, JournalRecord } from '../shared/record.ts'
import type { Guard } from './guard.ts'
import type { Recorder } from './recorder.ts'

export type MarkRecord = Extract<JournalRecord, { kind: 'mark' }>

/** Of one volume, or of all where the name is empty; the guards that gave the proof. @throws incomplete, not-found */
export async function prove(guards: readonly Guard[], volume: string): Promise<readonly Guard[]> {
  const asked = guards.filter((guard) => volume === '' || guard.volume.name === volume)
  if (asked.length === 0) throw new PacsimileError('not-found', `This agent has no volume ${volume}`)
  await Promise.all(asked.map((guard) => guard.prove()))
  return asked
}

/** One mark in each volume that is meant. @throws incomplete, not-found */
export async function setMark(guards: readonly Guard[], recorder: Recorder, volume: string, name: Label): Promise<readonly MarkRecord[]> {
  const proven = await prove(guards, volume)
  const entries = await recorder.note(proven.map((guard): Change => ({ kind: 'mark', volume: guard.volume.name, name })))
  return entries.flatMap(({ record }) => (record.kind === 'mark' ? [record] : []))
}
