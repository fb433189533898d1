import type { ReactNode } from 'react'
import { texts } from '../texts'
import { PhoneIcon } from './Icons'

/** Around an answer of the safety gate: nobody must take it for an ordinary one. */
export function Emergency({ children }: { children: ReactNode }) {
  return (
    <section className="emergency" data-testid="emergency">
      <h3>
        <PhoneIcon /> {texts.emergency.heading}
      </h3>
      <ul className="calls">
        {texts.emergency.numbers.map(({ number, where }) => (
          <li key={number}>
            <a href={`tel:${number}`}>{texts.emergency.call(number)}</a>
            <span>{where}</span>
          </li>
        ))}
      </ul>
      {children}
    </section>
  )
}
