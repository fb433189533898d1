import { Component, type ReactNode } from 'react'
import { texts } from '../texts'

/** Instead of a blank page: nothing is lost, for the log has it. */
export class Crash extends Component<{ children: ReactNode }, { crashed: boolean }> {
  override state = { crashed: false }

  static getDerivedStateFromError(): { crashed: boolean } {
    return { crashed: true }
  }

  override render(): ReactNode {
    if (!this.state.crashed) return this.props.children
    return (
      <main className="crash" data-testid="error" role="alert">
        <p>{texts.problem.crash}</p>
        <button type="button" className="button" onClick={() => location.reload()}>
          {texts.problem.reload}
        </button>
      </main>
    )
  }
}
