import { type ReactNode, useLayoutEffect, useRef } from 'react'

interface DialogProps {
  label: string
  className?: string
  children: ReactNode
  onClose(): void
}

/** The browser's own modal dialog: it keeps the focus inside, closes on Esc and gives the focus back. */
export function Dialog({ label, className = 'dialog', children, onClose }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null)
  // Before the element is gone: only then does closing give the focus back.
  useLayoutEffect(() => {
    const element = dialog.current
    element?.showModal()
    return () => element?.close()
  }, [])
  return (
    <dialog
      ref={dialog}
      className={className}
      aria-label={label}
      onCancel={onClose}
      onClick={(event) => event.target === dialog.current && onClose()}
    >
      {children}
    </dialog>
  )
}
