import { Fragment } from 'react'
import { texts } from '../texts'
import { Dialog } from './Dialog'

export function Shortcuts({ onClose }: { onClose(): void }) {
  return (
    <Dialog label={texts.shortcuts.heading} onClose={onClose}>
      <h2>{texts.shortcuts.heading}</h2>
      <dl className="shortcuts">
        {texts.shortcuts.keys.map(({ keys, does }) => (
          <Fragment key={does}>
            <dt>
              {keys.map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{does}</dd>
          </Fragment>
        ))}
      </dl>
      <div className="choices">
        <button type="button" className="button" onClick={onClose}>
          {texts.shortcuts.close}
        </button>
      </div>
    </Dialog>
  )
}
