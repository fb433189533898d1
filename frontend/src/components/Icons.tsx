// Hand-made line icons on a 20-pixel grid; always beside or inside something that has a name.
import type { ReactNode } from 'react'

function icon(shape: ReactNode) {
  return function Icon() {
    return (
      <svg className="icon" viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">
        {shape}
      </svg>
    )
  }
}

export const MenuIcon = icon(<path d="M3 6h14M3 10h14M3 14h9" />)
export const PlusIcon = icon(<path d="M10 4v12M4 10h12" />)
export const CloseIcon = icon(<path d="M5 5l10 10M15 5L5 15" />)
export const SendIcon = icon(<path d="M10 16V4M5 9l5-5 5 5" />)
export const StopIcon = icon(<rect className="filled" x="5.5" y="5.5" width="9" height="9" rx="1.5" />)
export const DownIcon = icon(<path d="M10 4v12M5 11l5 5 5-5" />)
export const CopyIcon = icon(<path d="M7 7V4.5A1.5 1.5 0 018.5 3h7A1.5 1.5 0 0117 4.5v7a1.5 1.5 0 01-1.5 1.5H13M4.5 7h7A1.5 1.5 0 0113 8.5v7a1.5 1.5 0 01-1.5 1.5h-7A1.5 1.5 0 013 15.5v-7A1.5 1.5 0 014.5 7z" />)
export const CheckIcon = icon(<path d="M4 10.5l4 4 8-9" />)
export const AgainIcon = icon(<path d="M16 10a6 6 0 11-1.800-4.300M16 3v3.5h-3.5" />)
export const EditIcon = icon(<path d="M12.5 4.5l3 3M4 16l.7-3.400 8.900-8.900a1.400 1.400 0 012 0l.7.7a1.400 1.400 0 010 2L7.400 15.300z" />)
export const TrashIcon = icon(<path d="M3.5 5.5h13M8 5.5V4a1 1 0 011-1h2a1 1 0 011 1v1.5M5 5.5l.8 10a1.5 1.5 0 001.5 1.5h5.400a1.5 1.5 0 001.5-1.5l.8-10M8.5 9v4.5M11.5 9v4.5" />)
export const ExportIcon = icon(<path d="M10 3v9M6.5 8.5L10 12l3.5-3.5M4 13v2.5A1.5 1.5 0 005.5 17h9a1.5 1.5 0 001.5-1.5V13" />)
export const KeyboardIcon = icon(<path d="M3.5 5h13A1.5 1.5 0 0118 6.5v7a1.5 1.5 0 01-1.5 1.5h-13A1.5 1.5 0 012 13.5v-7A1.5 1.5 0 013.5 5zM5 8.200h.01M8.300 8.200h.01M11.700 8.200h.01M15 8.200h.01M6.5 11.800h7" />)
export const UpvoteIcon = icon(<path d="M6 9v8H4.5A1.5 1.5 0 013 15.5v-5A1.5 1.5 0 014.5 9zM6 9l3.200-6a2 2 0 012 2v3h3.900a1.800 1.800 0 011.800 2.100l-.8 5A2.300 2.300 0 0113.800 17H6" />)
export const DownvoteIcon = icon(<path d="M14 11V3h1.5A1.5 1.5 0 0117 4.5v5a1.5 1.5 0 01-1.5 1.5zM14 11l-3.200 6a2 2 0 01-2-2v-3H4.900a1.800 1.800 0 01-1.800-2.100l.8-5A2.300 2.300 0 016.200 3H14" />)
export const PhoneIcon = icon(<path d="M5 3h2.5l1.200 3.5-1.700 1.200a9 9 0 005.300 5.300l1.200-1.700L17 12.5V15a2 2 0 01-2.200 2A12.800 12.800 0 013 5.200 2 2 0 015 3z" />)

/** One beat of the product's line: its mark, and what moves while a stage runs. */
export function Pulse({ className = 'pulse' }: { className?: string }) {
  return (
    <svg className={className} viewBox="0 0 32 16" width="32" height="16" aria-hidden="true">
      <path pathLength="100" d="M1 8.5h7l2-3 2.5 6L16 2l3 12 2.5-5.5H31" />
    </svg>
  )
}
