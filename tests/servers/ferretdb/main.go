// Command ferretdb serves the MongoDB wire protocol on SQLite, for the tests: ferretdb HOST:PORT FOLDER.
//
// FerretDB 1.x reads a document and writes it back in two steps, where MongoDB promises that a change of one
// document is atomic. So its clients reach it through a door that lets one write in at a time.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: ferretdb HOST:PORT FOLDER")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	folder, err := filepath.Abs(os.Args[2])
	check(err)
	check(os.MkdirAll(folder, 0o700))
	inner := filepath.Join(folder, "inner.sock")
	if err := os.Remove(inner); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Fatal(err)
	}
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{Unix: inner},
		Handler:   "sqlite",
		SQLiteURL: "file:" + folder + "/",
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	check(err)
	door, err := net.Listen("tcp", os.Args[1])
	check(err)
	go func() {
		<-ctx.Done()
		door.Close()
	}()
	go admit(door, inner)
	check(server.Run(ctx))
}

var writes = map[string]bool{"insert": true, "update": true, "delete": true, "findAndModify": true}

// admit connects each client to the server behind, one write and its answer at a time over all of them.
func admit(door net.Listener, inner string) {
	var turn sync.Mutex
	for {
		client, err := door.Accept()
		if err != nil {
			return
		}
		go func() {
			defer client.Close()
			server, err := net.Dial("unix", inner)
			if err != nil {
				return
			}
			defer server.Close()
			for {
				question, err := message(client)
				if err != nil {
					return
				}
				answer, err := ask(&turn, server, question)
				if err != nil {
					return
				}
				if _, err = client.Write(answer); err != nil {
					return
				}
			}
		}()
	}
}

// ask returns the answer to a message; an OP_MSG with the flag moreToCome gets none.
func ask(turn *sync.Mutex, server net.Conn, question []byte) ([]byte, error) {
	const opMsg, moreToCome, start = 2013, 2, 26
	isMsg := binary.LittleEndian.Uint32(question[12:]) == opMsg && len(question) > start
	if isMsg {
		// Flags, a zero byte, the document's length and the type of its first element stand before the command's name.
		name, _, _ := bytes.Cut(question[start:], []byte{0})
		if writes[string(name)] {
			turn.Lock()
			defer turn.Unlock()
		}
	}
	if _, err := server.Write(question); err != nil {
		return nil, err
	}
	if isMsg && binary.LittleEndian.Uint32(question[16:])&moreToCome != 0 {
		return nil, nil
	}
	return message(server)
}

// message reads one message of the wire protocol: its length in four bytes, counting these, then the rest.
func message(from io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(size[:])
	if length < 20 || length > 64<<20 {
		return nil, errors.New("not a message of the wire protocol")
	}
	whole := make([]byte, length)
	copy(whole, size[:])
	_, err := io.ReadFull(from, whole[4:])
	return whole, err
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
