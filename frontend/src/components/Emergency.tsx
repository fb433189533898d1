import type { ReactNode } from 'react'
import { texts } from '../texts'
import { PhoneIcon } from './Icons'

interface EmergencyProps {
  /** What the answer says: the numbers to call are taken from it. */
  text: string
  running: boolean
  children: ReactNode
}

/** Around an answer of the safety gate: nobody must take it for an ordinary one. */
export function Emergency({ text, running, children }: EmergencyProps) {
  const named = texts.emergency.numbers.filter(({ number }) => names(text, number))
  const anywhere = texts.emergency.numbers.filter(({ number }) => texts.emergency.anywhere.includes(number))
  const calls = named.length > 0 || running ? named : anywhere
  return (
    <section className="emergency" data-testid="emergency">
      <h3>
        <PhoneIcon /> {texts.emergency.heading}
      </h3>
      <ul className="calls">
        {calls.map(({ number, where }) => (
          <li key={number}>
            <a href={`tel:${number.replaceAll(' ', '')}`}>{texts.emergency.call(number)}</a>
            <span>{where}</span>
          </li>
        ))}
      </ul>
      {children}
    </section>
  )
}

// Not as a part of a longer number, and not NHS 111, which is for advice.
const names = (text: string, number: string): boolean => new RegExp(`(?<!\\d ?|NHS )${number}(?! ?\\d)`).test(text)
