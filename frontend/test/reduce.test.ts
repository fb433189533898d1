import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Frame, emptySnapshot, reduce } from '../src/chat/reduce'
import type { Snapshot, StreamEvent } from '../src/types/streaming'

const TRANSCRIPTS = join(import.meta.dirname, '../../tests/transcripts')

interface Line {
  seq: number
  type: StreamEvent['type']
  data: object
}

function readFrames(name: string): Frame[] {
  const lines = readFileSync(join(TRANSCRIPTS, `${name}.jsonl`), 'utf8').split('\n').filter(Boolean)
  return lines.map((line) => {
    const { seq, type, data } = JSON.parse(line) as Line
    return { seq, event: { ...data, type } as StreamEvent }
  })
}

function readSnapshot(name: string): Snapshot {
  return JSON.parse(readFileSync(join(TRANSCRIPTS, `${name}.snapshot.json`), 'utf8')) as Snapshot
}

const names = readdirSync(TRANSCRIPTS)
  .filter((file) => file.endsWith('.jsonl'))
  .map((file) => file.replace('.jsonl', ''))

function fold(frames: readonly Frame[], from: Snapshot): Snapshot {
  return frames.reduce(reduce, from)
}

function emptyFor({ session_id, title }: Snapshot): Snapshot {
  return { ...emptySnapshot(session_id), title }
}

test('there are transcripts from the Python side', () => {
  expect(names.length).toBeGreaterThan(0)
})

describe.each(names)('%s', (name) => {
  const frames = readFrames(name)
  const expected = readSnapshot(name)

  test('folds to the snapshot that Python folds it to', () => {
    expect(fold(frames, emptyFor(expected))).toEqual(expected)
  })

  test('folds to the same state when any part is delivered again, in any pieces', () => {
    // A resume begins at an earlier frame: what is delivered is a walk over the log that may step back.
    const resumes = fc.array(fc.tuple(fc.nat(frames.length), fc.nat(frames.length)), { maxLength: 8 })
    fc.assert(
      fc.property(resumes, (cuts) => {
        let snapshot = emptyFor(expected)
        let reached = 0
        for (const [a, b] of cuts) {
          const from = Math.min(a, reached)
          const to = Math.max(from, b)
          snapshot = fold(frames.slice(from, to), snapshot)
          reached = Math.max(reached, to)
        }
        expect(fold(frames.slice(Math.min(reached, frames.length)), snapshot)).toEqual(expected)
      }),
    )
  })

  test('goes on from a snapshot taken anywhere', () => {
    for (let cut = 0; cut <= frames.length; cut += 1) {
      // A snapshot comes as JSON.
      const taken = JSON.parse(JSON.stringify(fold(frames.slice(0, cut), emptyFor(expected)))) as Snapshot
      expect(fold(frames, taken)).toEqual(expected)
    }
  })

  test('never changes a state that was given out', () => {
    const states = frames.map((_, index) => fold(frames.slice(0, index), emptyFor(expected)))
    const before = JSON.stringify(states)
    for (const [index, state] of states.entries()) fold(frames.slice(index), state)
    expect(JSON.stringify(states)).toBe(before)
  })
})
